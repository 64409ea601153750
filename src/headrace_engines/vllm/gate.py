"""What stands before every route of vLLM's server; loaded with ``--middleware headrace_engines.vllm.gate.Gate``.

Pure ASGI: what vLLM sends is passed on as it comes, event by event. Only an error's body is read whole, to be told in
the shape of our other engines.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace_engines.serving.app import TokenRequired
from headrace_engines.serving.body_size import outside_texts
from headrace_engines.serving.errors import ApiError, BadRequest, TooManyRequests, UnknownPath, error_response
from headrace_engines.serving.frozen import Compute, FrozenWatch, descendants
from headrace_engines.serving.parameters import (
    ChatParameters,
    CompletionParameters,
    SharedParameters,
    read_json,
)
from headrace_engines.vllm.context import ContextRoom, require_readable_messages, require_readable_texts
from headrace_engines.vllm.parameters import check, check_detokenize, check_tokenize
from headrace_engines.vllm.refusals import PanicsTold, TranslatedErrors

TOKEN_VARIABLE = "HEADRACE_ENGINE_TOKEN"  # noqa: S105 - the variable's name, not a token

GENERATION: dict[str, type[SharedParameters]] = {
    "/v1/completions": CompletionParameters,
    "/v1/chat/completions": ChatParameters,
}
"""The routes that generate, and the parameters of each."""

ROUTES = {
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/v1/models"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    *(("POST", path) for path in GENERATION),
}
"""All that is let through. vLLM has many more (pausing, weights, scaling, raw generation); none is for tenants."""

SLEEP_ROUTES = {("POST", "/sleep"), ("POST", "/wake_up"), ("GET", "/is_sleeping")}
"""The node's, where it was started to be put to sleep. The variable with which vLLM has them opens many others, which
reset caches or call any method of its workers (vllm/entrypoints/launchers/api_server/routers.py:40); they stay shut."""

MAX_OPEN = 512
"""Requests that may run or wait in vLLM, whose own waiting room has no end; 128 run at once on a CPU, 1,024 on a
large GPU."""

_LONG_NUMBER = re.compile(rb"(?<![-+.eE0-9])-?[0-9]{19,}+(?![.eE])")
"""A whole number that may not fit 64 bits."""


class Gate:
    """ASGI middleware: a token, the allowed routes, honest parameters.

    Raises:
        KeyError: The token is not in the environment; without one nothing is served.
    """

    def __init__(self, app: ASGIApp) -> None:
        checks = Checks(
            app, reads_tool_calls="--tool-call-parser" in sys.argv, may_sleep="--enable-sleep-mode" in sys.argv
        )
        self._checked = TokenRequired(PanicsTold(checks), _token())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._checked(scope, receive, send)


class Checks:
    """ASGI middleware: what is asked, once it is known who asks.

    Args:
        app: vLLM's server.
        reads_tool_calls: Whether it was started with a parser of this model's tool calls.
        may_sleep: Whether it was started to be put to sleep.
    """

    def __init__(self, app: ASGIApp, *, reads_tool_calls: bool, may_sleep: bool) -> None:
        self._app = app
        self._sleep_routes = SLEEP_ROUTES if may_sleep else frozenset[tuple[str, str]]()
        self._room = ContextRoom(app)
        self._reads_tool_calls = reads_tool_calls
        self._open = 0
        self._telling = 0
        self._watch = FrozenWatch()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan" or (scope["method"], scope["path"]) in self._sleep_routes:
            await self._app(scope, receive, send)
            return
        grammar_param = None
        try:
            _require_route(scope)
            if scope["method"] == "POST":
                body = await _read(receive)
                if body is None:
                    return  # hung up before the body was whole
                body, grammar_param = await self._check(scope, receive, body)
                scope, receive = _with_body(scope, body), _replay(body, receive)
        except ClientDisconnect:
            return
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        if scope["path"] == "/health" and self._watch.frozen(self._compute):
            await JSONResponse({"status": "frozen"}, 503)(scope, receive, send)
            return
        if scope["path"] not in GENERATION:
            await self._app(scope, receive, TranslatedErrors(scope, receive, send))
            return
        try:
            with self._place():
                told = TranslatedErrors(scope, receive, self._counting(send), grammar_param=grammar_param)
                await self._app(scope, receive, told)
        except TooManyRequests as error:
            await error_response(error)(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive, body: bytes) -> tuple[bytes, str | None]:
        """The body that vLLM gets, and the parameter that the answer's grammar is made of.

        Raises:
            ApiError: The request is refused.
            ClientDisconnect: Nobody waits for it any more.
        """
        model = _model(scope)
        fields = read_json(body, max_model_len=model.max_model_len)
        shape = GENERATION.get(scope["path"])
        try:
            if scope["path"] == "/detokenize":
                check_detokenize(fields, vocab_size=model.get_vocab_size(), max_model_len=model.max_model_len)
                return body, None
            require_readable_messages(fields, max_model_len=model.max_model_len)
            takes_media = model.is_multimodal_model
            if shape is None:
                check_tokenize(fields, reads_tool_calls=self._reads_tool_calls, takes_media=takes_media)
                _require_64_bits(body)
                require_readable_texts(fields, max_model_len=model.max_model_len, size_bytes=len(body))
                return body, None
            request = check(fields, shape, reads_tool_calls=self._reads_tool_calls, takes_media=takes_media)
            _require_64_bits(body)
            require_readable_texts(request.for_vllm, max_model_len=model.max_model_len, size_bytes=len(body))
            await self._room.require(scope, receive, request, size_bytes=len(body))
            return msgspec.json.encode(request.for_vllm), request.grammar_param
        except RecursionError as error:  # what could be read can still be too deep to be written again
            raise BadRequest("The body is nested too deeply.", code="invalid_json") from error

    def _compute(self) -> Compute:
        """Engine core and workers of vLLM. A request whose reader is slow does not wait for them."""
        waiting = self._open - self._telling
        return Compute(descendants(os.getpid()) if waiting else (), waiting)  # looking for them reads all of /proc

    def _counting(self, send: Send) -> Send:
        """The same, known to be at it while the reader takes no more."""

        async def counted(message: Message) -> None:
            self._telling += 1
            try:
                await send(message)
            finally:
                self._telling -= 1

        return counted

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._open >= MAX_OPEN:
            raise TooManyRequests(
                f"The engine is full: {self._open} requests are running or waiting. Try again later.",
                code="queue_full",
                retry_after_s=1,
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class _Model(Protocol):
    """What is used of vLLM's ``ModelConfig`` (vllm/config/model.py:245, 1616, 1981)."""

    max_model_len: int
    """Tokens of context."""

    @property
    def is_multimodal_model(self) -> bool:
        """Whether it takes more than text."""

    def get_vocab_size(self) -> int:
        """Token ids are below this."""


def _model(scope: Scope) -> _Model:
    """The model, from where vLLM keeps it for its own routes (``app_state.py:65`` of its server)."""
    model: _Model = scope["app"].state.vllm_config.model_config
    return model


def _token() -> str:
    token = os.environ[TOKEN_VARIABLE]
    if not token:
        raise KeyError(TOKEN_VARIABLE)
    return token


def _require_64_bits(body: bytes) -> None:
    """Refuse longer numbers: at them vLLM's own reader of JSON fails, with status 500."""
    if _LONG_NUMBER.search(body) and any(map(_is_beyond, _LONG_NUMBER.findall(outside_texts(body)))):
        raise BadRequest("The body has a whole number that does not fit 64 bits.", code="invalid_value")


def _is_beyond(number: bytes) -> bool:
    return len(number) > len(str(-(2**63))) or not -(2**63) <= int(number) < 2**63


def _require_route(scope: Scope) -> None:
    method, path = scope["method"], scope["path"]
    if (method, path) in ROUTES:
        return
    if (method, path) == ("POST", "/v1/embeddings"):
        raise BadRequest(
            "vllm makes no embeddings here; a model that is made for them is served by transformers.",
            param="model",
            code="unsupported_task",
        )
    known = any(path == other for _, other in ROUTES)
    detail = "Method Not Allowed" if known else "Not Found"
    raise UnknownPath(f"{method} {path}: {detail}.", status=405 if known else 404)


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None when the client hung up before."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _with_body(scope: Scope, body: bytes) -> Scope:
    """The request's head as it fits another body; it is JSON, whatever the client called it."""
    replaced = {b"content-length", b"content-type", b"transfer-encoding"}
    headers = [(name, value) for name, value in scope["headers"] if name not in replaced]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return {**scope, "headers": headers}


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what really comes: that the client hangs up."""
    told = asyncio.Event()

    async def replayed() -> Message:
        if told.is_set():
            return await receive()
        told.set()
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
