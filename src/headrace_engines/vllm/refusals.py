"""vLLM's refusals in the words of our other engines' wire: OpenAI's shape, with its types and a code for programs."""

from __future__ import annotations

import contextlib
import re

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace_engines.serving.codec import why_not_encoded
from headrace_engines.serving.compilers import told_by_xgrammar
from headrace_engines.serving.errors import (
    ApiError,
    BadRequest,
    TokenizerFailed,
    TooManyRequests,
    Unavailable,
    UnknownModel,
    api_error_from,
    error_response,
)
from headrace_engines.serving.generator import GrammarInvalid


class TranslatedErrors:
    """A `Send` that holds back an answer with an error's status until it is whole, and passes on all others as is.

    Args:
        scope: The request's.
        receive: The request's.
        send: Where answers go.
        grammar_param: The parameter that the answer's grammar was made of, if it has one.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, grammar_param: str | None = None) -> None:
        self._grammar_param = grammar_param
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
                error = translate(self._status, b"".join(self._held), grammar_param=self._grammar_param)
                await error_response(error)(self._scope, self._receive, self._send)


class PanicsTold:
    """ASGI middleware: a panic of the tokenizers library as a refusal.

    To vLLM's own handlers it is no exception, and the server would answer 500 without a word.

    Args:
        app: What stands before vLLM's server, and asks it for the lengths of texts too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            raise
        except BaseException as error:
            why = why_not_encoded(error)
            if begun or not why:
                raise
            param = "messages" if scope["path"].startswith("/v1/chat/") else "prompt"
            await error_response(TokenizerFailed(why, param=param))(scope, receive, send)


class _Said(msgspec.Struct):
    message: str = ""
    param: str | None = None


class _Refusal(msgspec.Struct):
    error: _Said


_NO_GRAMMAR = re.compile(r"Failed to transform (?:json schema|regex|choices) into a grammar: ")
"""How vLLM begins what xgrammar says (vllm/v1/structured_output/backend_xgrammar.py:433, 442, 469)."""


def translate(status: int, body: bytes, *, grammar_param: str | None = None) -> ApiError:
    """What vLLM says (``ErrorResponse``, vllm/entrypoints/serve/engine/protocol.py:86), as one of our errors."""
    said = _Said(body[:500].decode(errors="replace"))
    with contextlib.suppress(msgspec.MsgspecError):
        said = msgspec.json.decode(body, type=_Refusal).error
    if status == 404:
        return UnknownModel(said.message, param=said.param, code="model_not_found")
    if status == 429:
        return TooManyRequests(said.message, code="queue_full", retry_after_s=1)
    if status < 500 and (begun := _NO_GRAMMAR.match(said.message)):
        why = told_by_xgrammar(said.message[begun.end() :])
        return api_error_from(GrammarInvalid(why), grammar_param=grammar_param)
    if status < 500:
        param = said.param.removeprefix("body.") if said.param else None
        return BadRequest(said.message, param=param, code="invalid_value")
    if status == 503:
        return Unavailable(said.message)
    return ApiError(said.message, code="internal")
