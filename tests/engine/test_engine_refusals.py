"""What engines refuse, and that they name what is wrong."""

from pathlib import Path
from typing import Any

import pytest
from engine_launch import MAX_MODEL_LEN, MODEL_NAME, OURS
from engine_process import EngineProcess, chat_body, start_engine

from headrace_engines.serving.parameters import HARMLESS

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = chat_body("Hi", max_tokens=2)
TEXT = {"type": "text", "text": "a"}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "get_weather"}}
DEEP = '{"a":' * 3000 + "1" + "}" * 3000
"""JSON that a reader which recurses cannot read."""


def with_messages(*messages: Any) -> dict[str, Any]:
    """A chat request with these messages."""
    return HI | {"messages": list(messages)}


BAD = [
    (CHAT, {"messages": HI["messages"]}, 400, "model"),
    (CHAT, {"model": MODEL_NAME}, 400, "messages"),
    (CHAT, HI | {"model": "another"}, 404, "model"),
    (CHAT, HI | {"model": 5}, 400, "model"),
    (CHAT, HI | {"messages": []}, 400, "messages"),
    (CHAT, HI | {"messages": "Hi"}, 400, "messages"),
    (CHAT, with_messages({"content": "Hi"}), 400, "messages[0].role"),
    (CHAT, HI | {"temperature": "hot"}, 400, "temperature"),
    (CHAT, HI | {"temperature": -1}, 400, "temperature"),
    (CHAT, HI | {"temperature": 2.5}, 400, "temperature"),
    (CHAT, HI | {"top_p": 0}, 400, "top_p"),
    (CHAT, HI | {"top_p": 1.1}, 400, "top_p"),
    (CHAT, HI | {"top_k": -2}, 400, "top_k"),
    (CHAT, HI | {"min_p": 2}, 400, "min_p"),
    (CHAT, HI | {"presence_penalty": 3}, 400, "presence_penalty"),
    (CHAT, HI | {"repetition_penalty": 0}, 400, "repetition_penalty"),
    (CHAT, HI | {"repetition_penalty": 1e-300}, 400, "repetition_penalty"),
    (CHAT, HI | {"repetition_penalty": 1e300}, 400, "repetition_penalty"),
    (CHAT, HI | {"max_tokens": 0}, 400, "max_tokens"),
    (CHAT, HI | {"max_tokens": 2.5}, 400, "max_tokens"),
    (CHAT, HI | {"max_completion_tokens": "many"}, 400, "max_completion_tokens"),
    (CHAT, HI | {"max_completion_tokens": 9000}, 400, "max_completion_tokens"),
    (CHAT, HI | {"max_tokens": 9000}, 400, "max_tokens"),
    (CHAT, HI | {"seed": 2**63}, 400, "seed"),
    (CHAT, HI | {"stop": ""}, 400, "stop"),
    (CHAT, HI | {"stop": ["a", 5]}, 400, "stop[1]"),
    (CHAT, HI | {"stop": list("abcde")}, 400, "stop"),
    (CHAT, HI | {"stop": ["a" * 1000, "b" * 1000]}, 400, "stop"),
    (CHAT, HI | {"stream": "yes"}, 400, "stream"),
    (CHAT, HI | {"stream_options": {"include_usage": True}}, 400, "stream_options"),
    (CHAT, HI | {"n": 0}, 400, "n"),
    (CHAT, HI | {"n": 129}, 400, "n"),
    (CHAT, HI | {"logprobs": "yes"}, 400, "logprobs"),
    (CHAT, HI | {"top_logprobs": 3}, 400, "top_logprobs"),
    (CHAT, HI | {"stop_token_ids": [-1]}, 400, "stop_token_ids[0]"),
    (CHAT, HI | {"tools": [TOOL], "tool_choice": "any"}, 400, "tool_choice"),
    (CHAT, HI | {"response_format": {"type": "json_schema"}}, 400, "response_format"),
    (CHAT, HI | {"response_format": {"type": "xml"}}, 400, "response_format"),
    (CHAT, HI | {"guided_json": {}, "guided_regex": "a"}, 400, "guided_regex"),
    (CHAT, HI | {"guided_regex": "a" * 70_000}, 400, "guided_regex"),
    (CHAT, HI | {"guided_json": {"$ref": "#"}}, 400, "guided_json"),
    (CHAT, HI | {"guided_json": {"$ref": "https://example.com/schema.json"}}, 400, "guided_json"),
    (CHAT, HI | {"guided_json": {"type": "integer", "minimum": 10**30}}, 400, "guided_json"),
    (CHAT, HI | {"guided_regex": "(x{1,1000}){1,1000}"}, 400, "guided_regex"),
    (CHAT, HI | {"guided_json": {"type": "integer", "multipleOf": 999_983}}, 400, "guided_json"),
    (CHAT, HI | {"guided_regex": "((x*)*)*" * 100}, 400, "guided_regex"),
    (CHAT, HI | {"guided_regex": "(x{1,1000}){1," + "0" * 40 + "1000}"}, 400, "guided_regex"),
    (CHAT, HI | {"guided_json": {"type": "string", "pattern": "(.+)+" * 500}}, 400, "guided_json"),
    (CHAT, HI | {"guided_json": DEEP}, 400, "guided_json"),
    (CHAT, HI | {"structured_outputs": {"json": DEEP}}, 400, "structured_outputs"),
    (CHAT, HI | {"guided_json": {"type": "no_such_type"}}, 400, "guided_json"),
    (CHAT, HI | {"chat_template_kwargs": {"self": 1}}, 400, "chat_template_kwargs"),
    (CHAT, HI | {"chat_template_kwargs": {"messages": 1}}, 400, "chat_template_kwargs"),
    (CHAT, with_messages({"role": "user", "content": "a " * 150_000}), 400, "messages"),
    (CHAT, HI | {"no_such_thing": 1}, 400, "no_such_thing"),
    (COMPLETIONS, {"model": MODEL_NAME}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": 5}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": ""}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": [1] * 8192}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": ["a"] * 2000}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": ["a", "a " * 9000]}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": "a", "best_of": 3}, 400, "best_of"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": "a", "suffix": "b"}, 400, "suffix"),
    ("/tokenize", {}, 400, "prompt"),
    ("/tokenize", {"prompt": "a", "model": "another"}, 404, "model"),
    ("/detokenize", {"model": MODEL_NAME, "tokens": [1] * 8193}, 400, "tokens"),
]  # fmt: skip
"""What no engine takes."""

IN_VLLMS_WORDS = [
    (CHAT, with_messages({"role": "user", "content": ["Hi"]}), 400, "messages[0].content[0]"),
    (CHAT, HI | {"min_tokens": 3}, 400, "min_tokens"),
    (CHAT, HI | {"tools": [{"type": "function"}]}, 400, "tools[0]"),
    (CHAT, HI | {"tool_choice": "required"}, 400, "tools"),
    (CHAT, with_messages({"role": "user", "content": [TEXT, SOUND]}), 400, "messages[0].content[1]"),
    (CHAT, with_messages({"role": "assistant", "tool_calls": [{}]}), 400, "messages[0].tool_calls[0]"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": []}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": [1, 49152]}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": [-1]}, 400, "prompt"),
]  # fmt: skip
"""What no engine takes; where the engine is vLLM, its own checks say so, and may name another place or none."""

TAKEN_BY_VLLM = [
    (CHAT, with_messages({"role": "user"}), 400, "messages[0].content"),
    (CHAT, HI | {"tools": [TOOL, TOOL]}, 400, "tools"),
    (CHAT, with_messages({"role": "tool", "content": "Hi"}), 400, "messages[0].tool_call_id"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": [True]}, 400, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": HI["messages"]}, 400, "prompt"),
]  # fmt: skip
"""What only our own shell refuses: vLLM makes sense of it, or nothing of it."""


def check_refusal(engine: EngineProcess, path: str, body: Any, status: int, param: str | None) -> None:
    """The answer is OpenAI's error shape, with the parameter at fault unless that is left open."""
    response = engine.client.post(path, json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert param is None or error["param"] == param


@pytest.mark.parametrize(("path", "body", "status", "param"), BAD)
def test_bad_input_is_refused_by_name(engine: EngineProcess, path: str, body: Any, status: int, param: str) -> None:
    """Whoever wrote the server, it names the parameter at fault."""
    check_refusal(engine, path, body, status, param)


@pytest.mark.parametrize(("path", "body", "status", "param"), IN_VLLMS_WORDS)
def test_bad_input_is_refused(engine: EngineProcess, path: str, body: Any, status: int, param: str) -> None:
    """Whoever wrote the server, it refuses in OpenAI's shape; our own shell by name."""
    check_refusal(engine, path, body, status, None if engine.name == "vllm" else param)


@pytest.mark.engines(*OURS)
@pytest.mark.parametrize(("path", "body", "status", "param"), TAKEN_BY_VLLM)
def test_our_shell_refuses_by_name(engine: EngineProcess, path: str, body: Any, status: int, param: str) -> None:
    """What it cannot make sense of is not guessed at."""
    check_refusal(engine, path, body, status, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "smol",}', b"[" * 50_000])
def test_what_is_not_a_json_object_is_refused(engine: EngineProcess, body: bytes) -> None:
    """Wrong JSON gets 400, whatever is wrong with it."""
    for path in (CHAT, COMPLETIONS, "/tokenize"):
        response = engine.client.post(path, content=body)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/tokenize", "/detokenize"])
def test_a_body_of_more_values_than_anybody_means_is_refused(engine: EngineProcess, path: str) -> None:
    """Whatever parameter holds them, and before it is decoded: it breaks off."""
    response = engine.client.post(path, content=b'{"metadata":[' + b"[]," * 80_000)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "too_many_values")


def test_an_overflow_says_by_how_much(engine: EngineProcess) -> None:
    """Context 8192, prompt 8190, five more asked for: three too many."""
    body = {"model": MODEL_NAME, "prompt": [1] * 8190, "max_tokens": 5}
    error = engine.client.post(COMPLETIONS, json=body).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "3 too many" in error["message"]


def test_a_chats_overflow_says_by_how_much(engine: EngineProcess) -> None:
    """The template's tokens count, and so do those that are asked for."""
    count = engine.post("/tokenize", {"model": MODEL_NAME, "messages": HI["messages"]})["count"]
    error = engine.client.post(CHAT, json=HI | {"max_tokens": MAX_MODEL_LEN - count + 4}).json()["error"]
    assert (error["code"], "4 too many" in error["message"]) == ("context_length_exceeded", True), error


def test_tools_that_the_template_does_not_know_are_refused(model_folder: Path) -> None:
    """A model whose template would leave them out is never asked as if it knew them."""
    with start_engine(model_folder) as engine:
        engine.wait_ready()
        response = engine.client.post(CHAT, json=HI | {"tools": [TOOL]})
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == "tools"
        assert "template" in response.json()["error"]["message"]


def test_what_makes_no_difference_is_taken(engine: EngineProcess) -> None:
    """Parameters that cannot change the answer, nulls, and values that ask for nothing are no reason to refuse."""
    nothing = {
        "n": 1,
        "tools": [],
        "tool_choice": "auto",
        "logprobs": False,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "no_such_thing": None,
        "temperature": None,
        "stop": None,
        "stream_options": None,
        "top_k": -1,
    }
    body = HI | nothing | dict.fromkeys(HARMLESS, "whatever")
    response = engine.client.post(CHAT, json=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", CHAT, 405), ("POST", "/v1/models/", 404)]
)
def test_what_is_no_route_says_so(engine: EngineProcess, method: str, path: str, status: int) -> None:
    """Unknown paths and methods get OpenAI's error shape as well."""
    response = engine.client.request(method, path)
    assert response.status_code == status
    assert path in response.json()["error"]["message"]
