"""vLLM's refusals in the words of our other engines' wire: OpenAI's shape, with its types and a code for programs."""

from __future__ import annotations

import contextlib

import msgspec
from starlette.types import Message, Receive, Scope, Send

from headrace_engines.serving.errors import (
    ApiError,
    BadRequest,
    TooManyRequests,
    Unavailable,
    UnknownModel,
    error_response,
)


class TranslatedErrors:
    """A `Send` that holds back an answer with an error's status until it is whole, and passes on all others as is.

    Args:
        scope: The request's.
        receive: The request's.
        send: Where answers go.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._status = 0
        self._held: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Send one event of an answer."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._status = message["status"]
        elif not self._status:
            await self._send(message)
        else:
            self._held.append(message.get("body", b""))
            if not message.get("more_body", False):
                error = translate(self._status, b"".join(self._held))
                await error_response(error)(self._scope, self._receive, self._send)


class _Said(msgspec.Struct):
    message: str = ""
    param: str | None = None


class _Refusal(msgspec.Struct):
    error: _Said


def translate(status: int, body: bytes) -> ApiError:
    """What vLLM says (``ErrorResponse``, vllm/entrypoints/serve/engine/protocol.py:86), as one of our errors."""
    said = _Said(body[:500].decode(errors="replace"))
    with contextlib.suppress(msgspec.MsgspecError):
        said = msgspec.json.decode(body, type=_Refusal).error
    if status == 404:
        return UnknownModel(said.message, param=said.param, code="model_not_found")
    if status == 429:
        return TooManyRequests(said.message, code="queue_full", retry_after_s=1)
    if status < 500:
        param = said.param.removeprefix("body.") if said.param else None
        return BadRequest(said.message, param=param, code="invalid_value")
    if status == 503:
        return Unavailable(said.message)
    return ApiError(said.message, code="internal")
