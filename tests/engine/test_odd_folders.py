"""What is odd about folders, and what a version may wish, on every engine: one more of each serves all of it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_launch import MODEL_NAME, in_the_form_of
from engine_process import EngineProcess, chat_body, completion_body, start_engine

TEMPLATE = (
    "{% for m in messages %}|{{ m.role }}: {{ m.content }}{% endfor %}{% if add_generation_prompt %}|bot:{% endif %}"
)
ENDLESS = {"type": "Split", "pattern": {"Regex": "(?:(x+x+)+)+y"}, "behavior": "Isolated", "invert": False}
LONG = "x" * 60


def unnoted(source: Path, target: Path) -> Path:
    """The same folder with weights whose files do not note their format."""
    target.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            os.link(path, target / path.name)
            continue
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        del header["__metadata__"]
        written = json.dumps(header).encode()
        (target / path.name).write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length :])
    return target


def backtracking(folder: Path) -> Path:
    """The folder itself, with a tokenizer whose pattern goes back and forth without end over some texts."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"].insert(0, ENDLESS)
    path.unlink()  # it may be a link
    path.write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="module", name="odd")
def fixture_odd(
    engine: EngineProcess, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    """A second engine: of such a folder, with a template of the version's own and without a cache of prefixes."""
    root = tmp_path_factory.mktemp("odd")
    folder = backtracking(in_the_form_of(engine.name, unnoted(model_folder, root / "model")))
    template = root / "own.jinja"
    template.write_text(TEMPLATE)
    with start_engine(folder, engine=engine.name, chat_template=template, prefix_caching=False) as odd:
        odd.wait_ready()
        yield odd


def test_weights_that_do_not_note_their_format_answer_the_same(engine: EngineProcess, odd: EngineProcess) -> None:
    """Every engine loads them: the greedy answer is that of the folder whose files note it."""
    prompt = "The largest rivers of Europe are the Volga, the Danube"
    texts = [each.complete(prompt, max_tokens=24)["choices"][0]["text"] for each in (odd, engine)]
    assert texts[0] == texts[1]


def prompt_of(engine: EngineProcess) -> str:
    """The prompt that an engine makes of a chat of one message."""
    messages = [{"role": "user", "content": "Hello there"}]
    asked = {"model": MODEL_NAME, "messages": messages, "add_generation_prompt": True, "add_special_tokens": False}
    tokens = engine.post("/tokenize", asked)["tokens"]
    prompt: str = engine.post("/detokenize", {"model": MODEL_NAME, "tokens": tokens})["prompt"]
    return prompt


def test_a_template_of_the_versions_own_makes_the_prompts(odd: EngineProcess) -> None:
    """On every engine it is that template's text and not the folder's; completions stay what they are."""
    assert prompt_of(odd) == "|user: Hello there|bot:"
    chat = odd.chat("Hello there", max_tokens=4)
    same = odd.complete("|user: Hello there|bot:", max_tokens=4, add_special_tokens=False)
    assert chat["usage"]["prompt_tokens"] == same["usage"]["prompt_tokens"]
    assert chat["choices"][0]["message"]["content"] == same["choices"][0]["text"]


def test_a_text_that_the_tokenizer_fails_on_is_refused(odd: EngineProcess) -> None:
    """400 with the parameter and the tokenizer's own words on every route that reads text; other texts are answered."""
    for path, body, param in (
        ("/tokenize", {"model": MODEL_NAME, "prompt": LONG}, "prompt"),
        ("/tokenize", {"model": MODEL_NAME, "messages": [{"role": "user", "content": LONG}]}, None),
        ("/v1/completions", completion_body(LONG), "prompt"),
        ("/v1/chat/completions", chat_body(LONG), "messages"),
        ("/v1/chat/completions", chat_body(LONG, stream=True), "messages"),
    ):
        answer = odd.client.post(path, json=body)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["code"] == "tokenizer_failed"
        assert "retry-limit-in-match over" in error["message"]
        assert param in (None, error["param"])
    assert odd.text("Hi", max_tokens=2)
