"""One request and its answer, as the data plane sees them: the seam between the gateway and whatever serves HTTP.

An adapter (``http1/`` today) implements `Exchange`. Its promises: nothing is buffered beyond a bounded amount in
either direction, and when the client hangs up, the task that handles the exchange is cancelled, or what it calls here
raises `ClientGone`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from headrace.gateway.request_head import Headers, RequestHead
from headrace.resources.errors import BodyTooLarge, HeadraceError

LastWords: TypeAlias = Callable[[HeadraceError], bytes]
"""An error as the last piece of an answer that has begun."""


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""


class Exchange(ABC):
    """One request under way. Answering is `start`, `write` any number of times, then `end`; or `abort` at any point.

    Attributes:
        last_words: What an answer that has begun says of the error that breaks it off; None where it has no place for
            that.
        added_headers: What goes out with every answer, whoever makes it.
    """

    head: RequestHead
    added_headers: tuple[tuple[bytes, bytes], ...] = ()
    started: bool = False
    ended: bool = False
    last_words: LastWords | None = None

    @abstractmethod
    async def read(self) -> bytes:
        """The next piece of the request's body; empty at its end.

        Raises:
            ClientGone: There will be no more.
        """

    @abstractmethod
    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers. Without ``content-length`` the body goes out in chunks."""

    @abstractmethod
    def write_soon(self, piece: bytes) -> bool:
        """Send a piece of the body, at once.

        Returns:
            Whether the client keeps up. If not, `drained` is to be awaited before the next piece.

        Raises:
            ClientGone: The client hung up.
        """

    @abstractmethod
    async def drained(self) -> None:
        """Wait until the client, which reads more slowly than we write, has read enough.

        Raises:
            ClientGone: It hung up.
        """

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body, at once; waits while the client reads more slowly than we write."""
        if not self.write_soon(piece):
            await self.drained()

    @abstractmethod
    async def end(self, piece: bytes = b"") -> None:
        """Send the last piece and complete the answer."""

    @abstractmethod
    def abort(self) -> None:
        """Break the connection, so that the client can tell that the answer is incomplete."""

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.end(body)

    def body(self) -> AsyncIterator[bytes]:
        """The pieces of the request's body, as they come."""
        return _Pieces(self)

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole body of the request.

        Raises:
            BodyTooLarge: It is longer, or says that it will be; what is over is not read.
            ClientGone: The client hung up.
        """
        announced = self.head.content_length_bytes
        if announced is not None and announced > limit_bytes:
            raise _too_large(f"{announced} bytes", limit_bytes)
        pieces = [await self.read()]
        size = len(pieces[0])
        while pieces[-1]:
            if size > limit_bytes:
                raise _too_large(f"more than {limit_bytes} bytes", limit_bytes)
            pieces.append(await self.read())
            size += len(pieces[-1])
        return b"".join(pieces)


class _Pieces:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._exchange.read()
        if not piece:
            raise StopAsyncIteration
        return piece


def _too_large(seen: str, limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        "The request body is too large.",
        evidence=f"It has {seen}; the limit is {limit_bytes} bytes.",
        fix="Send less at a time.",
    )


Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]
"""What answers exchanges."""
