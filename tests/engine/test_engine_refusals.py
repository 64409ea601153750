"""What the engine refuses, and that it names what is wrong."""

from typing import Any

import pytest
from engine_process import MODEL_NAME, EngineProcess, chat_body

from headrace_engines.serving.parameters import HARMLESS

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = chat_body("Hi", max_tokens=2)
TEXT = {"type": "text", "text": "a"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


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
    (CHAT, with_messages({"role": "tool", "content": "Hi"}), 400, "messages[0].role"),
    (CHAT, with_messages({"role": "user"}), 400, "messages[0].content"),
    (CHAT, with_messages({"role": "user", "content": [TEXT, IMAGE]}), 400, "messages[0].content[1]"),
    (CHAT, with_messages({"role": "user", "content": ["Hi"]}), 400, "messages[0].content[0]"),
    (CHAT, with_messages({"role": "assistant", "content": "", "tool_calls": [{}]}), 400, "messages[0].tool_calls"),
    (CHAT, HI | {"temperature": "hot"}, 400, "temperature"),
    (CHAT, HI | {"temperature": -1}, 400, "temperature"),
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
    (CHAT, HI | {"min_tokens": 3}, 400, "min_tokens"),
    (CHAT, HI | {"seed": 2**63}, 400, "seed"),
    (CHAT, HI | {"stop": ""}, 400, "stop"),
    (CHAT, HI | {"stop": ["a", 5]}, 400, "stop[1]"),
    (CHAT, HI | {"stream": "yes"}, 400, "stream"),
    (CHAT, HI | {"stream_options": {"include_usage": True}}, 400, "stream_options"),
    (CHAT, HI | {"n": 2}, 400, "n"),
    (CHAT, HI | {"logprobs": True}, 400, "logprobs"),
    (CHAT, HI | {"top_logprobs": 3}, 400, "top_logprobs"),
    (CHAT, HI | {"tools": [{"type": "function"}]}, 400, "tools"),
    (CHAT, HI | {"tool_choice": "required"}, 400, "tool_choice"),
    (CHAT, HI | {"response_format": {"type": "json_schema"}}, 400, "response_format"),
    (CHAT, HI | {"logit_bias": {"5": 10}}, 400, "logit_bias"),
    (CHAT, HI | {"no_such_thing": 1}, 400, "no_such_thing"),
    (COMPLETIONS, {"model": MODEL_NAME}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": 5}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": ""}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": []}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": ["a", "b"]}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": [1, 49152]}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": [-1]}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": [True]}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": [1] * 8192}, 400, "prompt"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": "a", "best_of": 3}, 400, "best_of"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": "a", "echo": True}, 400, "echo"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": "a", "logprobs": 0}, 400, "logprobs"),
    (COMPLETIONS, {"model": MODEL_NAME, "prompt": "a", "suffix": "b"}, 400, "suffix"),
    ("/tokenize", {}, 400, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": HI["messages"]}, 400, "prompt"),
    ("/tokenize", {"prompt": "a", "model": "another"}, 404, "model"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "param"), BAD)
def test_bad_input_is_refused_by_name(engine: EngineProcess, path: str, body: Any, status: int, param: str) -> None:
    """The answer is OpenAI's error shape, with the parameter at fault."""
    response = engine.client.post(path, json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "smol",}', b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused(engine: EngineProcess, body: bytes) -> None:
    """Wrong JSON gets 400, whatever is wrong with it."""
    for path in (CHAT, COMPLETIONS, "/tokenize"):
        response = engine.client.post(path, content=body)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


def test_an_overflow_says_by_how_much(engine: EngineProcess) -> None:
    """Context 8192, prompt 8190, five more asked for: three too many."""
    body = {"model": MODEL_NAME, "prompt": [1] * 8190, "max_tokens": 5}
    error = engine.client.post(COMPLETIONS, json=body).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "3 too many" in error["message"]


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
