"""One client's connection: bytes become exchanges, one after another; what is no request is refused.

Nothing that a client sends is held without a bound before anybody has looked at it: heads and trailers have a size and
a time, bodies a read-ahead, and what comes behind a request that is being answered waits unparsed. Nothing is held
without a bound for a client that does not read either: until it does, no next request is begun.
"""

from __future__ import annotations

import asyncio
import math
import select
from collections import deque
from typing import TYPE_CHECKING, cast

from headrace.gateway.exchange import ClientGone
from headrace.gateway.http1.answer import Http1Exchange
from headrace.gateway.http1.refusal import head_too_slow, refusal, too_large, too_many, too_slow
from headrace.gateway.http1.request_parser import RequestParser
from headrace.gateway.request_head import RequestHead
from headrace.resources.errors import HeadraceError, MalformedRequest

if TYPE_CHECKING:
    from headrace.gateway.http1.server import HttpServer

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers as they are sent, and of its trailers; as much as the gateway looks at."""

AHEAD_BYTES = 64 * 1024
"""Of what comes behind a request that is being answered, before the connection is read no further."""

WRITTEN_AHEAD_BYTES = 64 * 1024
"""Of an answer, unread by its client, before the writer has to wait: asyncio's bound; for TLS it has another."""

_PARSED_AT_ONCE_BYTES = 8 * 1024
"""Outside of bodies: what bounds the requests that are parsed before one can be told to wait."""


class Connection(asyncio.Protocol):
    """A client's connection.

    A refusal is sent only where the client reads it as the answer to what it is about: where an earlier request's
    answer is still due, or this one's has begun, the connection is closed without.

    Args:
        server: Who holds it.

    Attributes:
        client: Network address of the peer; empty on a unix socket.
        scheme: ``http`` or ``https``.
        deadline: Loop time at which `expire` is called; infinite while nothing is awaited of the client.
        reading_deadline: The same for `expire_reading`; infinite while the client reads what it is sent.
        lost: Whether the connection has ended.
        turned_away: Whether there was no room for it.
        writing_paused: Whether the client reads more slowly than we write.
    """

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.client, self.scheme = "", "http"
        self._deaf = False  # nothing that comes is looked at any more
        self._current: Http1Exchange | None = None  # the one that is answered
        self._receiving: Http1Exchange | None = None  # the one whose body comes
        self._queue: deque[Http1Exchange] = deque()
        self._ahead: list[bytes] = []  # what came behind the request that is answered
        self._ahead_bytes = 0
        self._reading_paused = False
        self._drain: asyncio.Future[None] | None = None
        self._unread_bytes = 0
        self.deadline = math.inf
        self.reading_deadline = math.inf
        self.lost = False
        self.turned_away = False
        self.writing_paused = False

    # --- from asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop. A connection on which nothing comes is kept like one between two requests."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = RequestParser(self)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else ""
        if transport.get_extra_info("sslcontext") is not None:
            self.scheme = "https"
            self._transport.set_write_buffer_limits(high=WRITTEN_AHEAD_BYTES)
        self.deadline = self._server.now + self._server.keep_alive_s
        self._server.hold(self)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop. The parser never gets more than the bytes that a head has left."""
        position, size = 0, len(data)
        while position < size and not self._deaf:
            if self._ahead or (self._current is not None and self._receiving is None):
                self._put_aside(data[position:] if position else data)
                return
            left = MAX_HEAD_BYTES - self._parser.unused_bytes
            if left <= 0:
                self._refuse(too_large(MAX_HEAD_BYTES))
                return
            if self._parser.in_head:
                left = min(left, _PARSED_AT_ONCE_BYTES)
                if not self._parser.unused_bytes:
                    self.deadline = self._loop.time() + self._server.patience.head_s
            piece = data if size <= left and not position else data[position : position + left]
            position += len(piece)
            try:
                self._parser.feed(piece)
            except MalformedRequest as error:
                self._refuse(error)

    def eof_received(self) -> bool:
        """Called by the event loop: a client that sends no more is one that left."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Called by the event loop."""
        self.lost = self._deaf = True
        self._parser.close()
        self.deadline = self.reading_deadline = math.inf
        self._server.forget(self)
        self._queue.clear()
        self._ahead.clear()
        self._receiving = None  # which holds this
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        exchange, self._current = self._current, None
        if exchange is not None and not exchange.ended:
            exchange.wake()
            exchange.client_left = True
            if exchange.task is not None:
                exchange.task.cancel()

    def pause_writing(self) -> None:
        """Called by the event loop."""
        self.writing_paused = True
        self._await_reader()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self.writing_paused = False
        self.reading_deadline = math.inf
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        if self._current is not None and self._current.ended and self._current.request_complete:
            self._next(self._current)

    # --- from the parser ---

    def begin(self, head: RequestHead, *, version: int, keep_alive: bool, expects_continue: bool) -> None:
        """Called by the parser: an exchange begins."""
        exchange = Http1Exchange(head, self, version=version, keep_alive=keep_alive, expects_continue=expects_continue)
        self._receiving = exchange
        self.deadline = math.inf
        if self._current is None:
            self._begin(exchange)
        else:
            self._queue.append(exchange)

    def take(self, piece: bytes) -> None:
        """Called by the parser: a piece of the request's body."""
        exchange = self._receiving
        assert exchange is not None
        exchange.take(piece)
        if exchange.wants_no_more:
            self._close_soon(linger=True)
        elif self.deadline != math.inf:
            self._await_body(exchange)

    def complete(self) -> None:
        """Called by the parser: the request's body has ended."""
        exchange, self._receiving = self._receiving, None
        assert exchange is not None
        exchange.complete_request()
        if exchange.ended:
            self._next(exchange)
        elif exchange is self._current:
            self.deadline = math.inf

    # --- for exchanges ---

    @property
    def ends_soon(self) -> bool:
        """Whether no next request is wanted: the server retires."""
        return self._server.retired

    @property
    def date_line(self) -> bytes:
        """The answer's ``Date``."""
        return self._server.date_line

    def send(self, data: bytes) -> None:
        """Write to the client.

        Raises:
            ClientGone: The connection is closed.
        """
        if not self.send_if_open(data):
            raise ClientGone

    def send_if_open(self, data: bytes) -> bool:
        """Write to the client, if it is still there."""
        transport = self._transport
        if self.lost or transport is None or transport.is_closing():
            return False
        try:
            transport.write(data)
        except RuntimeError as error:
            # uvloop's word for a connection that closed in this turn of the loop, before anybody was told of it.
            if "handler is closed" not in str(error):
                raise
            return False
        return True

    async def drained(self) -> None:
        """Wait until the client has read enough.

        Raises:
            ClientGone: It hung up.
        """
        while self.writing_paused and not self.lost:
            self._drain = self._loop.create_future()
            await self._drain
        if self.lost:
            raise ClientGone

    def hold(self, exchange: Http1Exchange) -> None:
        """Read no further until this exchange's body was read."""
        if exchange is self._receiving:
            self._pause_reading()

    def go_on(self, exchange: Http1Exchange) -> None:
        """The exchange's body was read."""
        if exchange is self._current:
            self._resume_reading()

    def finish(self, exchange: Http1Exchange) -> None:
        """The exchange's answer has ended."""
        if self.lost or exchange is not self._current:
            return
        if not exchange.keep_alive or self._server.closed:
            self._close_soon(linger=not exchange.request_complete)
        elif exchange.request_complete:
            self._next(exchange)
        else:  # what is left of the body is read away
            self._await_body(exchange)
            self._resume_reading()

    def close(self) -> None:
        """End once the client has what was written; called where no answer is due."""
        self._deaf = True
        if self._transport is not None:
            self._transport.close()
        self.deadline = self._server.now + self._server.patience.keep_alive_s

    def last_call(self) -> None:
        """A connection that waits for a request waits no longer than a server that retires does."""
        if self.idle and not self._deaf:
            self.deadline = min(self.deadline, self._loop.time() + self._server.patience.last_call_s)

    def turn_away(self, limit: int, *, linger: bool) -> None:
        """Say that there are as many connections as there may be, and end."""
        self.turned_away = True
        self.send_if_open(refusal(too_many(limit), self.date_line, self._server.marks([])))
        self._close_soon(linger=linger)

    @property
    def idle(self) -> bool:
        """Whether no answer is due, and nothing of a request has come."""
        return self._current is None and not self._parser.unused_bytes and not self._ahead

    def expire(self) -> None:
        """The deadline has passed."""
        if self._transport is None:
            return
        if self._transport.is_closing():
            self._transport.abort()
        elif self._receiving is not None and not self._deaf and not self._receiving.ended:
            self._refuse(too_slow(self._server.patience.body_s))
        elif self._parser.has_begun and not self._deaf:
            self._refuse(head_too_slow(self._server.patience.head_s))
        elif not (self.idle and _holds_unread(self._transport)):  # else it is we who are late: it is read first
            self.close()

    def expire_reading(self) -> None:
        """The client has read nothing for a long time: it is cut off, unless it has read a little."""
        assert self._transport is not None
        if self._transport.get_write_buffer_size() < self._unread_bytes:
            self._await_reader()
        else:
            self._transport.abort()

    # --- within ---

    def _await_reader(self) -> None:
        if self._transport is not None:
            self._unread_bytes = self._transport.get_write_buffer_size()
            self.reading_deadline = self._loop.time() + self._server.patience.read_s

    def _put_aside(self, data: bytes) -> None:
        """Keep what comes behind the request that is answered; read on, for only so it is seen that a client leaves."""
        self._ahead.append(data)
        self._ahead_bytes += len(data)
        if self._ahead_bytes > AHEAD_BYTES:
            self._pause_reading()

    def _take_up(self) -> None:
        """Parse what was put aside."""
        ahead = b"".join(self._ahead)
        self._ahead.clear()
        self._ahead_bytes = 0
        if ahead and not self._deaf:
            self.data_received(ahead)
        if self._ahead_bytes <= AHEAD_BYTES:
            self._resume_reading()

    def _begin(self, exchange: Http1Exchange) -> None:
        self._current = exchange
        exchange.task = self._server.run(exchange)
        if not exchange.request_complete:
            self._await_body(exchange)

    def _next(self, exchange: Http1Exchange) -> None:
        """The exchange is over and its connection is kept: the next one, once the client has read enough of this."""
        if exchange is not self._current or self.writing_paused:
            return
        if self._queue:
            self._begin(self._queue.popleft())
            return
        self._current = None
        server = self._server
        self.deadline = server.now + (server.patience.head_s if self._parser.unused_bytes else server.keep_alive_s)
        if self._ahead:
            self._loop.call_soon(self._take_up)
        else:
            self._resume_reading()

    def _await_body(self, exchange: Http1Exchange) -> None:
        if exchange is self._current:
            self.deadline = self._loop.time() + self._server.patience.body_s

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self.deadline = math.inf  # it is we who do not read
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()
            if self._receiving is not None:
                self._await_body(self._receiving)

    def _refuse(self, error: HeadraceError) -> None:
        """Answer where that can be understood, and end."""
        exchange = self._receiving
        if self._may_refuse():
            seen = self._parser.headers if exchange is None else exchange.head.headers
            self.send_if_open(refusal(error, self.date_line, self._server.marks(seen)))
        self._deaf = True
        if exchange is not None and exchange is self._current and not exchange.ended:
            exchange.client_left = True  # the exchange ends as if its client had left
            exchange.ended = True
            if exchange.task is not None:
                exchange.task.cancel()
        self._close_soon(linger=True)

    def _may_refuse(self) -> bool:
        """Whether the request that is being read is the next to be answered, and its answer has not begun."""
        if self._queue:
            return False
        if self._receiving is None:
            return self._current is None
        return self._receiving is self._current and not self._receiving.started

    def _close_soon(self, *, linger: bool) -> None:
        """Look at nothing more, and end.

        Args:
            linger: Whether bytes of the client may be under way: closed at once, the connection would be reset, and the
                client might never see why.
        """
        if not linger:
            self.close()
            return
        self._deaf = True
        self._resume_reading()
        self.deadline = self._loop.time() + self._server.patience.linger_s


def _holds_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether bytes of the client, or its end, are here that this process had no time to read yet."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
