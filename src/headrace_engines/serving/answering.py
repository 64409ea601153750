"""One answer from its first byte to its last, whole or streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from headrace_engines.serving.answers import AnswerShape
from headrace_engines.serving.choices import Choice, Piece, joined
from headrace_engines.serving.errors import ApiError, api_error_from
from headrace_engines.serving.generator import GenerationFailed
from headrace_engines.serving.sequences import Sequences

T = TypeVar("T")

_JSON, _EVENTS = b"application/json", b"text/event-stream"


class Answer:
    """An ASGI response that reads sequences and answers at once or piece by piece.

    Nothing is sent before the first token, so that a failure until then has its own status. A client that hangs up
    cancels every sequence.

    Args:
        shape: How the answer looks.
        sequences: Where its text comes from.
        choices: What the text of each sequence says.
        prompt_tokens: Tokens of the prompts, each counted once.
        stream: Piece by piece.
        grammar_param: The parameter that a grammar came from, for the refusal of one that cannot be followed.
    """

    def __init__(
        self,
        shape: AnswerShape,
        sequences: Sequences,
        choices: Sequence[Choice],
        *,
        prompt_tokens: int,
        stream: bool,
        grammar_param: str | None,
    ) -> None:
        self._shape = shape
        self._sequences = sequences
        self._choices = choices
        self._prompt_tokens = prompt_tokens
        self._stream = stream
        self._grammar_param = grammar_param

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the answer."""
        async with cancelled_on_hang_up(receive, self._sequences.cancel):
            await (self._send_events(send) if self._stream else self._send_whole(send))

    async def _send_whole(self, send: Send) -> None:
        said: list[list[Piece]] = [[] for _ in self._choices]
        while pieces := await self._next_pieces():
            for index, piece in pieces:
                said[index].append(piece)
        if any(not each or each[-1].finish_reason is None for each in said):
            return  # hung up
        body = self._shape.whole([joined(each) for each in said], self._usage())
        await _send_start(send, _JSON, (b"content-length", b"%d" % len(body)))
        await _send_body(send, body, more=False)

    async def _send_events(self, send: Send) -> None:
        pieces = await self._next_pieces()
        if not pieces:
            return  # hung up before the first token
        await _send_start(send, _EVENTS)
        opening = self._shape.opening(len(self._choices))
        try:
            while pieces:
                events = opening + b"".join([self._shape.event(index, piece) for index, piece in pieces])
                opening = b""
                if events:
                    await _send_body(send, events, more=True)
                pieces = await self._next_pieces()
        except ApiError as error:
            await _send_body(send, b"data: " + msgspec.json.encode(error.body) + b"\n\n", more=False)
            return
        await _send_body(send, self._shape.closing(self._usage()), more=False)

    async def _next_pieces(self) -> list[tuple[int, Piece]]:
        """What was said since the last call; nothing once all is said."""
        try:
            deltas = await self._sequences.next()
        except GenerationFailed as error:
            raise api_error_from(error, grammar_param=self._grammar_param) from error
        pieces = []
        for index, delta in deltas:
            piece = self._choices[index].read(delta)
            if piece.finish_reason is not None and delta.finish_reason is None:
                self._sequences.end(index)
            pieces.append((index, piece))
        return pieces

    def _usage(self) -> dict[str, int]:
        completion_tokens = self._sequences.completion_tokens
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self._prompt_tokens + completion_tokens,
        }


async def unless_hung_up(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away.

    Raises:
        ClientDisconnect: It has gone.
    """
    working = asyncio.ensure_future(work)
    try:
        async with cancelled_on_hang_up(receive, working.cancel):
            return await working
    except asyncio.CancelledError:
        if working.cancelled() and not asyncio.current_task().cancelling():  # type: ignore[union-attr] # in a task
            raise ClientDisconnect from None
        raise


@asynccontextmanager
async def cancelled_on_hang_up(receive: Receive, cancel: Callable[[], object]) -> AsyncIterator[None]:
    """Call `cancel` when the client goes away, and in any case at the end of the block."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        cancel()


def _send_start(send: Send, media_type: bytes, *headers: tuple[bytes, bytes]) -> Awaitable[None]:
    all_headers = [(b"content-type", media_type), (b"cache-control", b"no-cache"), *headers]
    return send({"type": "http.response.start", "status": 200, "headers": all_headers})


def _send_body(send: Send, body: bytes, *, more: bool) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": body, "more_body": more})
