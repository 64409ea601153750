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
from typing import Any, Protocol

import msgspec
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace_engines.serving.app import TokenRequired
from headrace_engines.serving.errors import ApiError, BadRequest, TooManyRequests, UnknownPath, error_response
from headrace_engines.serving.followable import within_64_bits
from headrace_engines.serving.frozen import Compute, FrozenWatch, descendants
from headrace_engines.serving.parameters import (
    ChatParameters,
    CompletionParameters,
    SharedParameters,
    read_json,
)
from headrace_engines.vllm.context import ContextRoom
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

MAX_OPEN = 512
"""Requests that may run or wait in vLLM, whose own waiting room has no end; 128 run at once on a CPU, 1,024 on a
large GPU."""

_LONG_NUMBER = re.compile(rb"[0-9]{19}")


class Gate:
    """ASGI middleware: a token, the allowed routes, honest parameters.

    Raises:
        KeyError: The token is not in the environment; without one nothing is served.
    """

    def __init__(self, app: ASGIApp) -> None:
        checks = Checks(app, reads_tool_calls="--tool-call-parser" in sys.argv)
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
    """

    def __init__(self, app: ASGIApp, *, reads_tool_calls: bool) -> None:
        self._app = app
        self._room = ContextRoom(app)
        self._reads_tool_calls = reads_tool_calls
        self._open = 0
        self._telling = 0
        self._watch = FrozenWatch()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            _require_route(scope)
            if scope["method"] == "POST":
                body = await _read(receive)
                if body is None:
                    return  # hung up before the body was whole
                body = await self._check(scope, body)
                scope, receive = _with_body(scope, body), _replay(body, receive)
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
                await self._app(scope, receive, TranslatedErrors(scope, receive, self._counting(send)))
        except TooManyRequests as error:
            await error_response(error)(scope, receive, send)

    async def _check(self, scope: Scope, body: bytes) -> bytes:
        """The body that vLLM gets.

        Raises:
            ApiError: The request is refused.
        """
        fields = read_json(body)
        shape = GENERATION.get(scope["path"])
        try:
            if scope["path"] == "/detokenize":
                check_detokenize(fields, vocab_size=_model(scope).get_vocab_size())
                return body
            takes_media = _model(scope).is_multimodal_model
            if shape is None:
                check_tokenize(fields, takes_media=takes_media)
                _require_64_bits(fields, body)
                await self._room.require_readable(scope, fields, size_bytes=len(body))
                return body
            request = check(fields, shape, reads_tool_calls=self._reads_tool_calls, takes_media=takes_media)
            _require_64_bits(fields, body)
            await self._room.require(scope, request, size_bytes=len(body))
            return msgspec.json.encode(request.for_vllm)
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
    """What is used of vLLM's ``ModelConfig`` (vllm/config/model.py:1616, 1981)."""

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


def _require_64_bits(fields: dict[str, Any], body: bytes) -> None:
    """Refuse longer numbers: at them vLLM's own reader of JSON fails, with status 500."""
    if _LONG_NUMBER.search(body) and not within_64_bits(fields):
        raise BadRequest("The body has a whole number that does not fit 64 bits.", code="invalid_value")


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
