"""One request on a client's connection, and its answer."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from headrace.gateway.exchange import ClientGone, Exchange
from headrace.gateway.request_head import Headers, RequestHead

if TYPE_CHECKING:
    from headrace.gateway.http1.connection import Connection

READ_AHEAD_BYTES = 64 * 1024
"""Of a request's body, before its connection is read no further."""

DISCARDED_BYTES = 64 * 1024
"""A body that nobody wants any more is read away up to this size, to keep its connection for the next request."""

STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


def status_line(status: int) -> bytes:
    """The first line of an answer; a status that nobody named has no phrase."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Http1Exchange(Exchange):
    """An exchange on a connection. The connection feeds it the request's body, and it writes the answer.

    Args:
        head: What was asked.
        connection: Whose client it is.
        version: HTTP's minor version: 0 or 1.
        keep_alive: Whether the client would send another request on this connection.
        expects_continue: Whether the client waits for ``100 Continue`` before it sends the body.
    """

    def __init__(
        self, head: RequestHead, connection: Connection, *, version: int, keep_alive: bool, expects_continue: bool
    ) -> None:
        self.head = head
        self.client_left = False
        self.request_complete = False
        self.keep_alive = keep_alive
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._version = version
        self._expects_continue = expects_continue
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._discarded_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._held_head = b""
        self._chunked = False
        self._bodiless = False

    # --- for the connection ---

    def take(self, piece: bytes) -> None:
        """A piece of the request's body. One that comes behind the answer is read away."""
        if self.ended:
            self._discarded_bytes += len(piece)
            return
        self._pieces.append(piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes > READ_AHEAD_BYTES:
            self._connection.hold(self)
        self.wake()

    def complete_request(self) -> None:
        """The request's body has come to its end."""
        self.request_complete = True
        self.wake()

    def wake(self) -> None:
        """Something changed that a reader may wait for."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    @property
    def wants_no_more(self) -> bool:
        """Whether so much of its body came behind the answer that the connection is better closed."""
        return self._discarded_bytes > DISCARDED_BYTES

    # --- for the gateway ---

    async def read(self) -> bytes:
        """The next piece of the request's body; empty at its end."""
        while not self._pieces:
            if self.request_complete:
                return b""
            if self._connection.lost:
                raise ClientGone
            if self._expects_continue:
                self._expects_continue = False
                self._connection.send(_CONTINUE)
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._taken()

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole body of the request; of most, all of it is here when it is asked for."""
        if self.request_complete and self._waiting_bytes <= limit_bytes:
            return self._taken()
        return await super().read_all(limit_bytes)

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers, in one packet with the first piece of the body where that follows at once."""
        self.started = True
        self._held_head = self._head(status, headers)
        asyncio.get_running_loop().call_soon(self._release_head)

    def write_soon(self, piece: bytes) -> bool:
        """Send a piece of the body, and say whether the client keeps up."""
        connection = self._connection
        if piece and not self._bodiless:
            if self._chunked:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            connection.send(self._take_head() + piece if self._held_head else piece)
        return not connection.writing_paused

    async def drained(self) -> None:
        """Wait until the client has read enough."""
        await self._connection.drained()

    async def end(self, piece: bytes = b"") -> None:
        """Send the last piece."""
        last = self._take_head()
        if not self._bodiless:
            if not self._chunked:
                last += piece
            elif piece:
                last += b"%x\r\n%b\r\n0\r\n\r\n" % (len(piece), piece)
            else:
                last += _LAST_CHUNK
        self.ended = True
        if last:
            self._connection.send(last)
        self._connection.finish(self)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer, in one packet."""
        self.started = True
        self._held_head = self._head(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.end(body)

    def abort(self) -> None:
        """End without the last piece: the connection closes, and chunked framing shows the cut."""
        if not self.ended:
            self._release_head()
            self.ended = True
            self.keep_alive = False
            self._connection.finish(self)

    # --- within ---

    def _taken(self) -> bytes:
        """All that has come of the body and was not read yet, in one piece; its connection is read on."""
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if self._waiting_bytes > READ_AHEAD_BYTES:
            self._connection.go_on(self)
        self._waiting_bytes = 0
        return piece

    def _head(self, status: int, headers: Headers) -> bytes:
        if self.added_headers:
            headers = [*headers, *self.added_headers]
        parts = [status_line(status), self._connection.date_line]
        framed = closing = False
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
            framed = framed or name == b"content-length"
            closing = closing or name == b"connection"  # only ever to close it
        self._bodiless = self.head.method == "HEAD" or status in (204, 304)
        self._chunked = not self._bodiless and self._version > 0 and not framed
        if self._connection.ends_soon or (not self.request_complete and self._rest_is_long()):
            self.keep_alive = False
        if closing or (self._version == 0 and not self._bodiless and not framed):
            self.keep_alive = False
        if not self.keep_alive and not closing:
            parts.append(b"connection: close\r\n")
        elif self._version == 0 and not closing:
            parts.append(b"connection: keep-alive\r\n")
        if self._chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _rest_is_long(self) -> bool:
        """Whether what is still to come of the body is better not waited for, or will not come."""
        length = self.head.content_length_bytes
        return self._expects_continue or length is None or length > DISCARDED_BYTES

    def _take_head(self) -> bytes:
        head, self._held_head = self._held_head, b""
        return head

    def _release_head(self) -> None:
        if self._held_head and not self._connection.lost:
            self._connection.send_if_open(self._take_head())
