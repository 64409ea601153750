"""What a version wishes of its engine, on real engines: a chat template of its own, and no prefix caching."""

import ast
from pathlib import Path

import pytest
from engine_launch import ENGINES, MODEL_NAME, environment_of, folder_for
from engine_process import EngineProcess, start_engine

from headrace.runtimes.vllm.tool_calls import TOOL_PARSERS

TEMPLATE = (
    "{% for m in messages %}|{{ m.role }}: {{ m.content }}{% endfor %}{% if add_generation_prompt %}|bot:{% endif %}"
)


def prompt_of(engine: EngineProcess) -> str:
    """The prompt that an engine makes of a chat of one message."""
    messages = [{"role": "user", "content": "Hello there"}]
    asked = {"model": MODEL_NAME, "messages": messages, "add_generation_prompt": True, "add_special_tokens": False}
    tokens = engine.post("/tokenize", asked)["tokens"]
    prompt: str = engine.post("/detokenize", {"model": MODEL_NAME, "tokens": tokens})["prompt"]
    return prompt


@pytest.mark.parametrize("name", ENGINES)
def test_a_template_of_the_versions_own_makes_the_prompts(name: str, tmp_path: Path) -> None:
    """On every engine it is that template's text and not the folder's; completions stay what they are."""
    path = tmp_path / "own.jinja"
    path.write_text(TEMPLATE)
    with start_engine(folder_for(name), engine=name, chat_template=path, prefix_caching=False) as engine:
        engine.wait_ready()
        assert prompt_of(engine) == "|user: Hello there|bot:"
        chat = engine.chat("Hello there", max_tokens=4)
        same = engine.complete("|user: Hello there|bot:", max_tokens=4, add_special_tokens=False)
        assert chat["usage"]["prompt_tokens"] == same["usage"]["prompt_tokens"]
        assert chat["choices"][0]["message"]["content"] == same["choices"][0]["text"]


@pytest.mark.parametrize("name", ENGINES)
def test_a_template_that_does_not_parse_ends_every_engine(name: str, tmp_path: Path) -> None:
    """Before it is ready, with the same code and the line."""
    path = tmp_path / "own.jinja"
    path.write_text("{% for m in messages %}")
    with start_engine(folder_for(name), engine=name, chat_template=path) as engine:
        fatal = engine.fatal()
    assert fatal["code"] == "CHAT_TEMPLATE_INVALID"
    assert "line 1" in fatal["evidence"]


def test_the_tool_parsers_are_those_of_vllm() -> None:
    """All that it registers, by name; read from its source, for importing it takes half a minute."""
    (source,) = environment_of("vllm").path.glob("lib/python3*/site-packages/vllm/tool_parsers/__init__.py")
    tables = [
        node.value
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_TOOL_PARSERS_TO_REGISTER"
    ]
    (names,) = [ast.literal_eval(table).keys() for table in tables]
    assert sorted(names) == sorted(TOOL_PARSERS)
