"""The promises of the gate before vLLM's server, kept with a stand-in for that server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace_engines.serving.body_size import MAX_BUILT
from headrace_engines.serving.frozen import FrozenWatch
from headrace_engines.serving.text_size import MAX_CHARS_PER_TOKEN
from headrace_engines.vllm import gate
from headrace_engines.vllm.gate import Gate
from headrace_engines.vllm.parameters import MAX_PROMPTS

MAX_MODEL_LEN = 100
VOCAB_SIZE = 50
TEMPLATE_TOKENS = 7


INSIDE = "data:image/png;base64,AA=="
PICTURE = {"type": "image_url", "image_url": {"url": INSIDE}}


class PanicException(BaseException):
    """What a panic of the tokenizers library is in Python."""


class Server:
    """Answers on vLLM's routes as vLLM does; a token is a word."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.questions = 0
        self.arrived = asyncio.Event()
        self.going_on = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/health", lambda _: Response(status_code=200)),
                Route("/collective_rpc", lambda _: Response("done"), methods=["POST"]),
                Route("/reset_prefix_cache", lambda _: Response("done"), methods=["POST"]),
                Route("/sleep", lambda asked: Response(asked.url.query), methods=["POST"]),
                Route("/wake_up", lambda _: Response("awake"), methods=["POST"]),
                Route("/is_sleeping", lambda _: JSONResponse({"is_sleeping": True})),
                Route("/tokenize", self.tokenize, methods=["POST"]),
                Route("/detokenize", lambda _: JSONResponse({"prompt": "text"}), methods=["POST"]),
                Route("/v1/completions", self.generate, methods=["POST"]),
                Route("/v1/chat/completions", self.generate, methods=["POST"]),
            ]
        )
        self.is_multimodal_model = True
        self.max_model_len = MAX_MODEL_LEN
        self.app.state.vllm_config = SimpleNamespace(model_config=self)

    def behind_a_gate(self) -> ASGIApp:
        """With a new gate, in its place inside the application."""
        gated = Gate(self.app)

        async def called(scope: Scope, receive: Receive, send: Send) -> None:
            await gated({**scope, "app": self.app}, receive, send)

        return called

    def get_vocab_size(self) -> int:
        """As vLLM's own `ModelConfig` says it."""
        return VOCAB_SIZE

    async def tokenize(self, request: Request) -> Response:
        """Count words, and the template's own tokens."""
        self.questions += 1
        asked = await request.json()
        if "xxx" in str(asked):
            raise PanicException("retry-limit-in-match over")
        chat = sum(len(str(message["content"]).split()) for message in asked.get("messages", []))
        count = len(asked["prompt"].split()) if "prompt" in asked else chat + TEMPLATE_TOKENS
        return JSONResponse({"count": count, "max_model_len": MAX_MODEL_LEN, "tokens": [0] * count})

    async def generate(self, request: Request) -> Response:
        """What was asked, back; as a stream, as a failure, or late, where the prompt says so."""
        asked = await request.json()
        self.seen.append(asked)
        if "xxx" in str(asked):
            raise PanicException("retry-limit-in-match over")
        if asked.get("prompt") == "late":
            self.arrived.set()
            await self.going_on.wait()
        if asked.get("prompt") == "wrong":
            said = {"message": "Too hot.", "type": "BadRequestError", "param": "body.temperature", "code": 400}
            return JSONResponse({"error": said}, 400)
        if asked.get("prompt") == "grammar":
            why = "[16:14:22] /project/cpp/json_schema_converter.cc:4944: Unsupported type 'x'"
            return JSONResponse({"error": {"message": f"Failed to transform json schema into a grammar: {why}"}}, 400)
        if asked.get("prompt") == "broken":
            return Response("Internal Server Error", 500)
        if asked.get("stream"):
            return StreamingResponse(_events(), media_type="text/event-stream")
        return JSONResponse(asked)


async def _events() -> AsyncIterator[bytes]:
    for number in range(3):
        yield f"data: {number}\n\n".encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A stand-in of vLLM's server; the gate's token is `tok`."""
    monkeypatch.setenv(gate.TOKEN_VARIABLE, "tok")
    return Server()


def ask(server: Server, method: str, path: str, body: Any = None, *, token: str | None = "tok") -> httpx.Response:
    """One request through a new gate."""

    async def asked() -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(server.behind_a_gate()), base_url="http://engine", headers=headers
        ) as client:
            return await client.request(method, path, json=body)

    return asyncio.run(asked())


def complete(server: Server, prompt: Any = "one two", **parameters: Any) -> httpx.Response:
    """One completion."""
    return ask(server, "POST", "/v1/completions", {"model": "m", "prompt": prompt} | parameters)


def chat(server: Server, messages: Any, **parameters: Any) -> httpx.Response:
    """One chat."""
    return ask(server, "POST", "/v1/chat/completions", {"model": "m", "messages": messages} | parameters)


def error(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    assert response.status_code == status, response.text
    said = response.json()["error"]
    assert said.keys() == {"message", "type", "param", "code"}
    return said


def test_without_the_token_only_health_answers(server: Server) -> None:
    """Also paths that do not exist ask for it, so that nobody can map them."""
    assert ask(server, "GET", "/health", token=None).status_code == 200
    for path in ("/v1/completions", "/collective_rpc", "/nope"):
        for token in (None, "wrong", "tok "):
            assert error(ask(server, "POST", path, {}, token=token), 401)["code"] == "invalid_api_key"
    assert server.seen == []


def test_a_text_that_the_tokenizer_fails_on_is_refused_with_its_words(server: Server) -> None:
    """As our other engines refuse it, whichever of vLLM's routes met it."""
    for answer, param in (
        (complete(server, "xxx"), "prompt"),
        (complete(server, "xxx " + "word " * MAX_MODEL_LEN), "prompt"),
        (chat(server, [{"role": "user", "content": "xxx"}]), "messages"),
        (ask(server, "POST", "/tokenize", {"model": "m", "prompt": "xxx"}), "prompt"),
    ):
        said = error(answer)
        assert (said["code"], said["param"]) == ("tokenizer_failed", param)
        assert "retry-limit-in-match over" in said["message"]


def test_without_a_token_of_its_own_nothing_is_served(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty token is none."""
    monkeypatch.setenv(gate.TOKEN_VARIABLE, "")
    with pytest.raises(KeyError):
        Gate(server.app)


def test_an_engine_that_may_sleep_is_put_to_sleep_by_its_node_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its three routes are there for the token; what else the variable opens is not, nor they for any other engine."""
    for method, path in gate.SLEEP_ROUTES:
        error(ask(server, method, path), 404)
    monkeypatch.setattr("sys.argv", ["server", "--enable-sleep-mode"])
    assert ask(server, "POST", "/sleep?level=1&mode=wait").text == "level=1&mode=wait"
    assert ask(server, "POST", "/wake_up").text == "awake"
    assert ask(server, "GET", "/is_sleeping").json() == {"is_sleeping": True}
    for method, path in gate.SLEEP_ROUTES:
        error(ask(server, method, path, token=None), 401)
    for path in ("/collective_rpc", "/reset_prefix_cache"):
        error(ask(server, "POST", path, {}), 404)
    error(ask(server, "GET", "/sleep"), 404)


def test_only_the_allowed_routes_are_let_through(server: Server) -> None:
    """What vLLM has for its operators is not there for anybody."""
    error(ask(server, "POST", "/collective_rpc", {}), 404)
    error(ask(server, "GET", "/v1/completions"), 405)

    async def websocket() -> list[dict[str, Any]]:
        sent = []

        async def send(message: Any) -> None:
            sent.append(message)

        await Gate(server.app)({"type": "websocket", "path": "/v1/realtime", "headers": []}, None, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(websocket()) == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("parameters", "param", "code"),
    [
        ({"frobnicate": 1}, "frobnicate", "unknown_parameter"),
        ({"watermarking": True}, "watermarking", "unknown_parameter"),
        ({"vllm_xargs": {"a": 1}}, "vllm_xargs", "unknown_parameter"),
        ({"kv_transfer_params": {}}, "kv_transfer_params", "unknown_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"use_beam_search": True}, "use_beam_search", "unsupported_parameter"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"max_tokens": "x"}, "max_tokens", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ],
)
def test_what_vllm_would_ignore_is_refused_by_name(
    server: Server, parameters: dict[str, Any], param: str, code: str
) -> None:
    """With 400 and the parameter's name; vLLM is not asked."""
    said = error(complete(server, **parameters))
    assert (said["param"], said["code"]) == (param, code)
    assert server.seen == []


def test_what_vllm_honours_reaches_it_and_what_makes_no_difference_does_not(server: Server) -> None:
    """Its own parameters too; identities of requests are not the client's to give."""
    honoured = {"n": 2, "logit_bias": {"5": 1.0}, "min_tokens": 1, "allowed_token_ids": [5], "ignore_eos": True}
    assert complete(server, **honoured, user="u", request_id="mine", priority=3, best_of=1, seed=None).json() == {
        "model": "m",
        "prompt": "one two",
        **honoured,
    }
    assert complete(server, guided_choice=["yes", "no"]).json()["structured_outputs"] == {"choice": ["yes", "no"]}


def test_no_tools_are_nothing_to_refuse(server: Server) -> None:
    """An empty list, which vLLM refuses, does not reach it, nor does the choice sent with it unless it wants a call."""
    messages = [{"role": "user", "content": "hi"}]
    for choice in ("auto", "none", None):
        seen = chat(server, messages, tools=[], tool_choice=choice).json()
        assert not seen.keys() & {"tools", "tool_choice"}
    assert chat(server, messages, tools=[], tool_choice="required").json()["tool_choice"] == "required"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_call_that_has_to_be_made_follows_its_schema(
    server: Server, monkeypatch: pytest.MonkeyPatch, choice: Any
) -> None:
    """As on our other engines; a request that says `strict` itself is left as it is, and so is a call left open."""
    monkeypatch.setattr("sys.argv", ["server", "--tool-call-parser", "hermes"])
    messages = [{"role": "user", "content": "hi"}]
    function = {"name": "f", "parameters": {"type": "object"}}

    def asked(strict: dict[str, Any], tool_choice: Any) -> Any:
        tools = [{"type": "function", "function": function | strict}]
        return chat(server, messages, tools=tools, tool_choice=tool_choice).json()["tools"][0]["function"]

    assert asked({}, choice)["strict"] is True
    assert asked({"strict": None}, choice)["strict"] is True
    assert asked({"strict": False}, choice)["strict"] is False
    assert "strict" not in asked({}, "auto")


def test_several_greedy_answers_are_asked_for_as_vllm_takes_them(server: Server) -> None:
    """It refuses n > 1 at temperature 0; keeping the likeliest token alone is the same."""
    said = complete(server, n=2, temperature=0).json()
    assert (said["n"], said["temperature"], said["top_k"]) == (2, 1.0, 1)
    assert complete(server, n=1, temperature=0).json()["temperature"] == 0


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"stop": list("abcde")}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"max_tokens": 2, "min_tokens": 3}, "min_tokens"),
        ({"temperature": 3}, None),
    ],
)
def test_what_vllm_refuses_in_its_own_words_is_said_in_ours(server: Server, said: dict[str, Any], param: str) -> None:
    """The parameter is named, and vLLM is not asked."""
    refused = error(complete(server, **said))
    assert (refused["param"], refused["code"]) == (param or "temperature", "invalid_value")
    assert server.seen == []


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ([{"role": "user", "content": None}], "messages[0].content", "invalid_value"),
        ([{"role": "user", "content": "hi"}, {"role": "tool", "content": "4"}], "messages[1].role", None),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}], "messages[0].tool_calls", None),
    ],
)
def test_messages_that_a_template_would_leave_out_are_refused(
    server: Server, messages: list[Any], param: str, code: str | None
) -> None:
    """What this model's template does not show is not taken as if it were."""
    refused = error(chat(server, messages))
    assert (refused["param"], refused["code"]) == (param, code or "tools_not_supported")
    assert server.seen == []


def test_embeddings_are_refused_with_who_makes_them(server: Server) -> None:
    """The route is known, and the refusal is no failure that is worth another try."""
    refused = error(ask(server, "POST", "/v1/embeddings", {"model": "m", "input": "x"}))
    assert refused["code"] == "unsupported_task"
    assert "transformers" in refused["message"]


def test_tools_need_a_model_whose_calls_can_be_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a parser they are refused in words for a client, not in vLLM's, which name options of its command."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    messages = [{"role": "user", "content": "hi"}]
    assert error(chat(server, messages, tools=tools))["param"] == "tools"
    assert chat(server, messages, tools=tools, tool_choice="none").status_code == 200
    monkeypatch.setattr("sys.argv", ["server", "--tool-call-parser", "hermes"])
    assert chat(server, messages, tools=tools).json()["tools"] == tools


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "alien", "content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/x"}}]}], None),
        ([{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}]}], None),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "http://10.0.0.1/x"}]}], None),
        ([{"role": "user", "content": [{"image_url": "http://10.0.0.1/x"}]}], None),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.1/x"}]}], None),
        ([{"role": "user", "content": [{"type": "text", "text": "", "uuid": "1", "image_url": INSIDE}]}], None),
        ([{"role": "user", "content": [{"type": "text", "text": "", "image_url": {"url": "http://10.0.0.1"}}]}], None),
        ([{"role": "user", "content": [{"type": "image_url", "uuid": "1", "image_url": None}]}], None),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ["http://10.0.0.1"]}}]}], None),
    ],
)
def test_messages_that_vllm_would_take_and_should_not_are_refused(
    server: Server, messages: list[Any], param: str | None
) -> None:
    """A role that no template knows; media that it would fetch from inside our network, also only to count them."""
    for refused in (chat(server, messages), ask(server, "POST", "/tokenize", {"model": "m", "messages": messages})):
        assert error(refused)["param"] == (param or "messages[0].content[0]")
    assert (server.seen, server.questions) == ([], 0)


def test_media_inside_the_request_are_vllms_to_judge(server: Server) -> None:
    """Where the model takes any; whether it takes these, vLLM knows."""
    content = [{"type": "text", "text": "what"}, PICTURE]
    said = chat(server, [{"role": "user", "content": content}], max_tokens=1)
    assert said.json()["messages"][0]["content"] == content


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (PICTURE, "no images,"),
        ({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}, "no parts of type 'input_audio',"),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA=="}}, "no parts of type 'video_url',"),
    ],
)
def test_media_for_a_model_of_text_are_refused_by_what_they_are(server: Server, part: Any, what: str) -> None:
    """It is the model that takes none, and neither to answer nor to count does vLLM look at them."""
    server.is_multimodal_model = False
    messages = [{"role": "user", "content": [{"type": "text", "text": "what"}, part]}]
    for refused in (chat(server, messages), ask(server, "POST", "/tokenize", {"model": "m", "messages": messages})):
        said = error(refused)
        assert (said["param"], said["code"]) == ("messages[0].content[1]", "unsupported_content")
        assert "not a multimodal model" in said["message"]
        assert what in said["message"]
    assert (server.seen, server.questions) == ([], 0)


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": "a"}, PICTURE]])
@pytest.mark.parametrize("arguments", ['{"a":' * 3000 + "1" + "}" * 3000, "[]", "{"])
def test_calls_of_tools_are_read_before_vllm_reads_them(
    server: Server, monkeypatch: pytest.MonkeyPatch, arguments: str, content: Any
) -> None:
    """Wherever messages come, with pictures or not: vLLM answers some of them with a failure of its own."""
    monkeypatch.setattr("sys.argv", ["server", "--tool-call-parser", "hermes"])
    server.max_model_len = 10_000  # they fit
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "assistant", "content": content, "tool_calls": [call]}]
    for refused in (chat(server, messages), ask(server, "POST", "/tokenize", {"model": "m", "messages": messages})):
        said = error(refused)
        assert (said["param"], said["code"]) == ("messages[0].tool_calls[0].function.arguments", "invalid_value")
    assert (server.seen, server.questions) == ([], 0)


def test_json_that_is_nested_too_deeply_names_its_parameter(server: Server) -> None:
    """Also where it comes as text."""
    deep = '{"a":' * 3000 + "1" + "}" * 3000
    assert error(complete(server, guided_json=deep))["param"] == "guided_json"
    assert error(complete(server, structured_outputs={"json": deep}))["param"] == "structured_outputs"
    assert server.seen == []


@pytest.mark.parametrize("name", ["self", "messages", "conversation", "chat_template", "max_length"])
def test_what_renders_a_template_keeps_its_names(server: Server, name: str) -> None:
    """As in our own shell, and nothing of vLLM's insides is told."""
    said = error(chat(server, [{"role": "user", "content": "x"}], chat_template_kwargs={name: 1}))
    assert (said["param"], said["code"]) == ("chat_template_kwargs", "invalid_value")
    assert said["message"].startswith(f"`chat_template_kwargs` cannot say {name}: ")
    assert server.seen == []


def test_a_chat_with_a_picture_is_always_counted(server: Server) -> None:
    """A picture of a few bytes can be a thousand tokens."""
    messages = [{"role": "user", "content": [PICTURE]}]
    assert chat(server, messages, max_tokens=1).status_code == 200
    assert server.questions == 2  # the shortest chat, and this one


def test_tokens_that_the_model_has_not_are_refused(server: Server) -> None:
    """vLLM would show them as nothing."""
    assert ask(server, "POST", "/detokenize", {"model": "m", "tokens": [0, VOCAB_SIZE - 1]}).status_code == 200
    said = error(ask(server, "POST", "/detokenize", {"model": "m", "tokens": [0, VOCAB_SIZE]}))
    assert (said["param"], said["code"]) == ("tokens[1]", "invalid_value")


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "excess"),
    [
        ("word " * 50, 50, 0),
        ("word " * 50, 51, 1),
        ("word " * 101, None, 2),
        ([1] * 60, 50, 10),
        (["word", "word " * 99], 5, 4),
        ([[1], [1] * 70], 40, 10),
    ],
)
def test_what_does_not_fit_the_context_is_refused_with_the_excess(
    server: Server, prompt: Any, max_tokens: int | None, excess: int
) -> None:
    """vLLM would shorten the completion without a word; the longest prompt counts."""
    said = complete(server, prompt, **({"max_tokens": max_tokens} if max_tokens else {}))
    if not excess:
        assert said.status_code == 200
        return
    assert error(said)["code"] == "context_length_exceeded"
    assert f": {excess} too many." in said.json()["error"]["message"]
    assert said.json()["error"]["param"] == ("max_tokens" if max_tokens else "prompt")


def test_no_prompt_is_counted_of_more_than_vllm_takes(server: Server) -> None:
    """Nor one that surely fits, nor any after the first that does not."""
    said = error(complete(server, ["word"] * (MAX_PROMPTS + 1)))
    assert (said["param"], said["code"], server.questions) == ("prompt", "invalid_value", 0)
    long = "word " * (MAX_MODEL_LEN + 1)
    assert error(complete(server, ["x", long, long, long]))["code"] == "context_length_exceeded"
    assert server.questions == 2  # its gate's measurement, and the first long one
    assert complete(server, ["word"] * MAX_PROMPTS).status_code == 200
    assert server.questions == 3


def test_who_hangs_up_while_prompts_are_counted_has_the_rest_not_counted(server: Server) -> None:
    """There may be a thousand of them."""
    gone = asyncio.Event()
    answer = server.tokenize

    async def tokenize(request: Request) -> Response:
        if server.questions:
            gone.set()
            await asyncio.Event().wait()  # until it is cancelled
        return await answer(request)

    server.app.router.routes[:] = [Route("/tokenize", tokenize, methods=["POST"])]

    async def asked() -> list[Any]:
        body = json.dumps({"model": "m", "prompt": ["word " * MAX_MODEL_LEN] * 50}).encode()
        inbox = [{"type": "http.request", "body": body}]
        sent: list[Any] = []

        async def receive() -> Any:
            if inbox:
                return inbox.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"authorization", b"Bearer tok")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
        await server.behind_a_gate()(scope, receive, send)
        return sent

    assert (asyncio.run(asked()), server.questions) == ([], 1)


def test_a_chats_template_counts_too(server: Server) -> None:
    """Its tokens are measured once; a short request is not counted at all."""
    fits = [{"role": "user", "content": "word " * 43}]
    assert chat(server, fits, max_completion_tokens=50).status_code == 200
    said = error(chat(server, fits, max_completion_tokens=51))
    assert said["param"] == "max_completion_tokens"
    assert ": 1 too many." in said["message"]
    before = server.questions
    assert complete(server, "x", max_tokens=1).status_code == 200
    assert server.questions == before + 1  # a new gate's one measurement


def test_vllms_own_refusals_are_told_in_our_shape(server: Server) -> None:
    """Type, parameter and code are as with our other engines; a body that is no error of its own is its message."""
    said = error(complete(server, "wrong"))
    assert said == {
        "message": "Too hot.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "invalid_value",
    }
    assert error(complete(server, "broken"), 500)["message"] == "Internal Server Error"
    assert error(ask(server, "POST", "/tokenize", {"prompt": "x", "y": 1}))["param"] == "y"


def test_a_chat_is_tokenised_with_all_that_its_prompt_is_made_of(server: Server) -> None:
    """So that whoever counts a chat's tokens counts those that its answer will be charged with."""
    chat = {"model": "m", "messages": [{"role": "user", "content": "one two"}], "add_special_tokens": False}
    more = {"chat_template_kwargs": {"mood": "glad"}, "continue_final_message": True, "add_generation_prompt": False}
    answer = ask(server, "POST", "/tokenize", chat | more)
    assert (answer.status_code, answer.json()["count"]) == (200, 2 + TEMPLATE_TOKENS)


def test_a_schema_that_vllm_cannot_follow_is_refused_as_by_other_engines(server: Server) -> None:
    """With the parameter, in the same sentence, and without the time and the place in its compiler's source."""
    for said in ({"guided_json": {"type": "x"}}, _format({"type": "x"})):
        assert error(complete(server, "grammar", **said)) == {
            "message": "The response format cannot be followed: Unsupported type 'x'",
            "type": "invalid_request_error",
            "param": next(iter(said)),
            "code": "grammar_invalid",
        }


def test_a_stream_is_passed_on_event_by_event(server: Server) -> None:
    """Nothing is gathered, and the end of the connection still reaches vLLM."""

    async def asked() -> tuple[list[Any], list[str]]:
        body = json.dumps({"model": "m", "prompt": "x", "stream": True, "max_tokens": 1}).encode()
        inbox = [
            {"type": "http.request", "body": body[:10], "more_body": True},
            {"type": "http.request", "body": body[10:], "more_body": False},
        ]
        sent: list[Any] = []
        asked_for: list[str] = []

        async def receive() -> Any:
            asked_for.append("event")
            return inbox.pop(0) if inbox else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"authorization", b"Bearer tok"), (b"transfer-encoding", b"chunked")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
        scope["app"] = server.app  # where it says what its model is
        await Gate(_Echo())(scope, receive, send)
        return sent, asked_for

    class _Echo:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/tokenize":
                await JSONResponse({"count": 1, "max_model_len": MAX_MODEL_LEN})(scope, receive, send)
                return
            assert not [name for name, _ in scope["headers"] if name == b"transfer-encoding"]
            request = await receive()
            assert json.loads(request["body"])["prompt"] == "x"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": True})
            assert (await receive())["type"] == "http.disconnect"

    sent, asked_for = asyncio.run(asked())
    assert [message.get("body") for message in sent] == [None, b"data: 1\n\n", b"data: 2\n\n"]
    assert len(asked_for) == 3


def test_beyond_its_places_a_request_is_refused_with_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """429, and the place is free again once its request has ended."""
    monkeypatch.setattr(gate, "MAX_OPEN", 1)

    async def asked() -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        server.arrived, server.going_on = asyncio.Event(), asyncio.Event()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(server.behind_a_gate()),
            base_url="http://engine",
            headers={"Authorization": "Bearer tok"},
        ) as client:
            body = {"model": "m", "prompt": "late", "max_tokens": 1}
            first = asyncio.create_task(client.post("/v1/completions", json=body))
            await server.arrived.wait()
            second = await client.post("/v1/completions", json=body)
            server.going_on.set()
            return await first, second, await client.post("/v1/completions", json=body)

    first, second, third = asyncio.run(asked())
    assert (first.status_code, third.status_code) == (200, 200)
    assert error(second, 429)["code"] == "queue_full"
    assert int(second.headers["retry-after"]) > 0


LIMIT = MAX_MODEL_LEN * MAX_CHARS_PER_TOKEN


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": "x" * (LIMIT + 1)}, "prompt"),
        ("/v1/completions", {"prompt": "x" * (LIMIT + 1), "truncate_prompt_tokens": 5}, "prompt"),
        ("/v1/completions", {"prompt": ["x", "x" * (LIMIT + 1)]}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * (LIMIT + 1)}]}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}] * (MAX_MODEL_LEN + 1)}, "messages"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"a": "x" * LIMIT}},
            "chat_template_kwargs",
        ),
        ("/tokenize", {"prompt": "x" * (LIMIT + 1)}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user", "content": "x" * (LIMIT + 1)}]}, "messages"),
    ],
)
def test_a_text_that_cannot_fit_is_not_even_tokenised(
    server: Server, path: str, body: dict[str, Any], param: str
) -> None:
    """Ten megabytes would take a tokeniser half a minute; vLLM is asked for nothing."""
    said = error(ask(server, "POST", path, {"model": "m"} | body))
    assert (said["code"], said["param"]) == ("context_length_exceeded", param)
    assert "are read." in said["message"]
    assert (server.questions, server.seen) == (0, [])


def test_a_body_of_more_values_than_anybody_means_is_not_even_decoded(server: Server) -> None:
    """Nor do tokens beyond the context, or what calls hide in a text of their own, reach vLLM."""
    nothing = ",".join(["[]"] * (MAX_BUILT + MAX_MODEL_LEN))
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):

        async def asked(path: str = path) -> httpx.Response:
            headers = {"Authorization": "Bearer tok"}
            transport = httpx.ASGITransport(server.behind_a_gate())
            async with httpx.AsyncClient(transport=transport, base_url="http://engine", headers=headers) as client:
                return await client.post(path, content=f'{{"metadata":[{nothing}], and no JSON from here on')

        assert error(asyncio.run(asked()))["code"] == "too_many_values"
    said = error(ask(server, "POST", "/detokenize", {"model": "m", "tokens": [0] * (MAX_MODEL_LEN + 1)}))
    assert (said["code"], said["param"]) == ("context_length_exceeded", "tokens")
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "[]" * LIMIT}}
    said = error(chat(server, [{"role": "assistant", "content": "", "tool_calls": [call]}]))
    assert (said["code"], said["param"]) == ("context_length_exceeded", "messages")
    assert (server.questions, server.seen) == (0, [])


def test_pictures_are_not_counted_as_text(server: Server) -> None:
    """Their bytes are many, and their tokens are vLLM's to count."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * LIMIT}}
    assert chat(server, [{"role": "user", "content": [image]}], max_tokens=1).status_code == 200


def _format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def _tools(*schemas: Any, **function: Any) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": f"f{number}", "parameters": schema} | function}
        for number, schema in enumerate(schemas)
    ]


NAMED = {"$defs": {"a/b": {"type": "integer"}, "c": {"type": "integer"}}}


@pytest.mark.parametrize("reference", ["#/$defs/a~1b", "#/$defs/a%2Fb", "#/$defs/~0", "other.json#/a", "urn:a"])
@pytest.mark.parametrize(
    ("said", "param"),
    [
        (_format, "response_format"),
        (lambda schema: {"guided_json": schema}, "guided_json"),
        (lambda schema: {"structured_outputs": {"json": schema}}, "structured_outputs"),
        (lambda schema: {"tools": _tools(schema, strict=True)}, "tools"),
    ],
)
def test_a_reference_that_vllm_does_not_read_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, said: Any, param: str, reference: str
) -> None:
    """Its compiler would fail at an escape in the middle of a stream, and let anything through for another document."""
    monkeypatch.setattr("sys.argv", ["server", "--tool-call-parser", "hermes"])
    hi = [{"role": "user", "content": "hi"}]
    schema = {"type": "object", "properties": {"x": {"anyOf": [{"$ref": reference}]}}} | NAMED
    refused = error(chat(server, hi, **said(schema)))
    assert (refused["param"], refused["code"]) == (param, "grammar_invalid")
    assert reference in refused["message"]
    schema["properties"] = {"x": {"$ref": "#/$defs/c"}, "$ref": {"enum": ["#~"]}}
    assert chat(server, hi, **said(schema)).status_code == 200


LONG = {"enum": ["x" * 65536]}
HALF = {"enum": ["x" * 40000]}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        (_format(LONG), "response_format"),
        ({"guided_json": LONG}, "guided_json"),
        ({"guided_regex": "x" * 65537}, "guided_regex"),
        ({"guided_choice": ["x" * 65537]}, "guided_choice"),
        ({"structured_outputs": {"json": LONG}}, "structured_outputs"),
        ({"tools": _tools(HALF, HALF), "tool_choice": "required"}, "tools"),
        ({"tools": _tools(HALF, HALF, strict=True)}, "tools"),
        (_format({"$ref": "#"}), "response_format"),
        (_format({"type": "integer", "minimum": 10**30, "maximum": 10**31}), "response_format"),
        ({"tools": _tools({"$ref": "#"}), "tool_choice": "required"}, "tools"),
    ],
)
def test_a_grammar_that_would_hold_up_or_fail_vllm_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], param: str
) -> None:
    """As our other engines refuse it; of tools all schemas count together."""
    monkeypatch.setattr("sys.argv", ["server", "--tool-call-parser", "hermes"])
    refused = error(chat(server, [{"role": "user", "content": "x"}], **said))
    assert (refused["code"], refused["param"]) == ("grammar_invalid", param)
    assert server.seen == []


def test_numbers_that_vllms_reader_fails_at_are_refused(server: Server) -> None:
    """Beyond 64 bits; text with as many digits is text, and what has a point or an exponent is no whole number."""
    for beyond in (2**63, -(2**63) - 1, 10**30, -(10**4000)):
        messages = [{"role": "user", "content": '1"'}]
        assert error(chat(server, messages, chat_template_kwargs={"a": [beyond]}))["code"] == "invalid_value"
    for taken in (2**63 - 1, -(2**63), "1" * 30, '"' + "1" * 30, 1e30, 1.2345678901234567890123):
        messages = [{"role": "user", "content": "1" * 30}]
        assert chat(server, messages, max_tokens=1, chat_template_kwargs={"a": taken}).status_code == 200


def test_it_is_not_healthy_while_what_computes_is_stopped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process under SIGSTOP with a request open; a request whose reader is slow does not count as open."""
    monkeypatch.setattr(gate, "FrozenWatch", lambda: FrozenWatch(0.2))
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    os.kill(child.pid, signal.SIGSTOP)
    monkeypatch.setattr(gate, "descendants", lambda _: [child.pid])

    async def asked() -> list[int]:
        server.arrived, server.going_on = asyncio.Event(), asyncio.Event()
        gated = server.behind_a_gate()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(gated),
            base_url="http://engine",
            headers={"Authorization": "Bearer tok"},
        ) as client:

            async def health() -> int:
                for _ in range(10):
                    status = (await client.get("/health")).status_code
                    await asyncio.sleep(0.05)
                return status

            seen = [await health()]
            slow = asyncio.create_task(_read_slowly(gated))
            await asyncio.sleep(0.05)
            seen.append(await health())
            slow.cancel()
            body = {"model": "m", "prompt": "late", "max_tokens": 1}
            late = asyncio.create_task(client.post("/v1/completions", json=body))
            await server.arrived.wait()
            seen.append(await health())
            os.kill(child.pid, signal.SIGCONT)
            await asyncio.sleep(0.1)
            seen.append(await health())
            server.going_on.set()
            assert (await late).status_code == 200
            return seen

    try:
        assert asyncio.run(asked()) == [200, 200, 503, 200]
    finally:
        child.kill()
        child.wait()


async def _read_slowly(gated: Gate) -> None:
    """A stream whose reader takes nothing after its first event."""
    body = json.dumps({"model": "m", "prompt": "x", "stream": True, "max_tokens": 1}).encode()
    inbox = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return inbox.pop() if inbox else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message.get("body"):
            await asyncio.Event().wait()

    headers = [(b"authorization", b"Bearer tok")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
    await gated(scope, receive, send)


@pytest.mark.parametrize("levels", range(900, 1000, 9))
def test_a_body_of_many_levels_is_answered_or_refused(server: Server, levels: int) -> None:
    """What the gate can read can be too deep for the next who reads it: 4xx, never an exception."""

    async def asked() -> httpx.Response:
        deep = "[" * levels + "]" * levels
        body = f'{{"model":"m","messages":[{{"role":"user","content":"x"}}],"chat_template_kwargs":{{"a":{deep}}}}}'
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(server.behind_a_gate()),
            base_url="http://engine",
            headers={"Authorization": "Bearer tok"},
        ) as client:
            return await client.post("/v1/chat/completions", content=body)

    assert asyncio.run(asked()).status_code in {200, 400}
