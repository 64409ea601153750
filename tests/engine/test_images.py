"""Images in chat messages, with a model that takes them: a tiny random Gemma 3.

Those for a model of text are in `test_capabilities` and `test_vllm_server`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_process import EngineProcess, chat_body, run_in_engine_environment, start_engine
from pictures import BLUE, RED, png

from headrace.capacity import estimate
from headrace.runtimes.vllm.runtime import MAX_IMAGE_PIXELS
from headrace.storage import open_artifacts
from headrace.weights.findings import check
from headrace.weights.folder import inspect

CHAT = "/v1/chat/completions"
CONTEXT, IMAGE_TOKENS = 256, 4
"""Those of `tiny_vision_model`, which only an engine's Python can import."""

MARKS = 4
"""Tokens around those of an image: where it starts, where it ends, and an empty line on either side."""

ESCAPED = {"$ref": "#/$defs/whole~1number", "$defs": {"whole/number": {"type": "integer"}}}


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's."""
    folder = tmp_path_factory.mktemp("images") / "gemma3"
    run_in_engine_environment(Path(__file__).parent / "tiny_vision_model.py", str(folder))
    return folder


@pytest.fixture(name="vllm", scope="module")
def fixture_vllm(folder: Path) -> Iterator[EngineProcess]:
    """The engine that passes images, as a node starts it."""
    with start_engine(folder, "--max-model-len", str(CONTEXT), engine="vllm") as running:
        running.wait_ready()
        yield running


def asking(*parts: str | dict[str, Any], **parameters: Any) -> dict[str, Any]:
    """A chat request with one message of texts and other parts."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return chat_body("", max_tokens=4) | {"messages": [{"role": "user", "content": content}]} | parameters


def image(url: str) -> dict[str, Any]:
    """An image as OpenAI's clients send it."""
    return {"type": "image_url", "image_url": {"url": url}}


def refusal(engine: EngineProcess, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The error of a request that must be refused."""
    response = engine.client.post(path, json=body)
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


def test_an_image_is_read_and_counted(vllm: EngineProcess) -> None:
    """It takes its tokens, whatever its size, and what it shows makes a difference."""
    asked = {"logprobs": True, "top_logprobs": 5}
    text = vllm.post(CHAT, asking("Look", **asked))
    red, blue, same = (
        vllm.post(CHAT, asking("Look", image(png(width, 9, colour)), **asked))
        for width, colour in ((40, RED), (30, BLUE), (40, RED))
    )
    for answer in (red, blue):
        assert answer["usage"]["prompt_tokens"] == text["usage"]["prompt_tokens"] + IMAGE_TOKENS + MARKS
        assert answer["usage"]["completion_tokens"] == 4
    assert red["choices"][0]["logprobs"] != blue["choices"][0]["logprobs"]
    assert red["choices"][0]["logprobs"] == same["choices"][0]["logprobs"]


def test_an_answer_about_an_image_streams(vllm: EngineProcess) -> None:
    """As any other does."""
    events = list(vllm.stream(CHAT, asking("Look", image(png(8, 8, RED)), stream_options={"include_usage": True})))
    assert events[-1]["usage"]["completion_tokens"] == 4


def test_an_image_counts_against_the_context(vllm: EngineProcess) -> None:
    """A request that does not fit for its image is refused with the excess, and not shortened."""
    picture = image(png(8, 8, RED))
    prompt_tokens = vllm.post(CHAT, asking("Look", picture))["usage"]["prompt_tokens"]
    tokenize = vllm.post("/tokenize", {key: asking("Look", picture)[key] for key in ("model", "messages")})
    assert tokenize["count"] == prompt_tokens
    room = CONTEXT - prompt_tokens
    error = refusal(vllm, CHAT, asking("Look", picture, max_tokens=room + 1))
    assert (error["param"], error["code"]) == ("max_tokens", "context_length_exceeded")
    assert ": 1 too many." in error["message"]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (image("https://127.0.0.1/x.png"), "as a `data:` URL"),
        (image("file:///etc/passwd"), "as a `data:` URL"),
        ({"type": "input_image", "image_url": "http://127.0.0.1/x.png"}, "as a `data:` URL"),
        ({"type": "text", "text": "", "uuid": "a", "image_url": "http://127.0.0.1/x.png"}, "uuid"),
    ],
)
def test_nothing_is_fetched_for_a_model_that_takes_images(vllm: EngineProcess, part: dict[str, Any], said: str) -> None:
    """Neither to answer nor to count: an address is refused before vLLM sees it."""
    body = asking("Look", part)
    for path, asked in ((CHAT, body), ("/tokenize", {key: body[key] for key in ("model", "messages")})):
        error = refusal(vllm, path, asked)
        assert error["param"] == "messages[0].content[1]"
        assert said in error["message"]


@pytest.mark.parametrize(
    "part",
    [
        image("data:image/png;base64,AAAA"),
        image(png(10_000, MAX_IMAGE_PIXELS // 10_000 + 1, RED)),
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ],
    ids=["no picture", "too large", "a sound"],
)
def test_what_is_no_image_for_it_is_refused(vllm: EngineProcess, part: dict[str, Any]) -> None:
    """In vLLM's words; the next request is answered."""
    assert refusal(vllm, CHAT, asking("Look", part))["message"]
    assert vllm.text("Look", max_tokens=1)


def test_the_first_grammar_does_not_decide_what_becomes_of_the_next(vllm: EngineProcess) -> None:
    """vLLM left to itself answers 500 to a schema that the compiler of its first one cannot read."""
    plain, odd, escaped = (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        for schema in ({"enum": [1, 2]}, {"type": "integer", "multipleOf": 3}, ESCAPED)
    )
    assert vllm.text("Look", **plain, max_tokens=4).strip() in {"1", "2"}
    assert "features not supported" in refusal(vllm, CHAT, asking("Look", **odd))["message"]
    for stream in (False, True):
        error = refusal(vllm, CHAT, asking("Look", **escaped, stream=stream))
        assert (error["param"], error["code"]) == ("response_format", "grammar_invalid")


def test_tokens_that_the_model_has_not_are_refused(vllm: EngineProcess) -> None:
    """As by our other engines; vLLM shows them as nothing."""
    assert vllm.post("/detokenize", {"tokens": vllm.tokens("Look")})["prompt"] == "Look"
    error = refusal(vllm, "/detokenize", {"tokens": [0, 5000]})
    assert error["param"] == "tokens[1]"
    assert "this model has tokens 0 to " in error["message"]


def test_its_text_is_served_by_transformers_which_names_who_takes_its_images(folder: Path) -> None:
    """Nobody has to guess whether model or engine is at fault."""
    with start_engine(folder, "--max-model-len", str(CONTEXT)) as running:
        running.wait_ready()
        assert running.post(CHAT, asking("Look"))["usage"]["completion_tokens"] == 4
        error = refusal(running, CHAT, asking("Look", image(png(8, 8, RED))))
    assert (error["param"], error["code"]) == ("messages[0].content[1]", "unsupported_parameter")
    assert "vllm takes its images" in error["message"]


def test_its_folder_is_sound_and_its_memory_is_planned(folder: Path) -> None:
    """The part that reads images is no obstacle to a deployment; two layers of one head keep the text's keys."""
    read = inspect(open_artifacts(str(folder)))
    assert [finding for finding in check(open_artifacts(str(folder))) if finding.severity == "error"] == []
    assert read.config.model_type == "gemma3"
    assert estimate(read, CONTEXT, 1).kv_bytes_per_token == 2 * 2 * 1 * 32 * 2
