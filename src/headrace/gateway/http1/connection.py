"""One client's connection: bytes become exchanges, one after another; what is no request is refused.

Nothing that a client sends is held without a bound before anybody has looked at it: heads and trailers have a size and
a time, bodies a read-ahead, pipelined requests wait unread behind the one that is answered.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools
import msgspec

from headrace.contracts.vertex.errors import google_error
from headrace.gateway.exchange import ClientGone, Headers, RequestHead
from headrace.gateway.http1.answer import Http1Exchange, status_line
from headrace.resources.errors import HeadersTooLarge, HeadraceError, MalformedRequest, RequestTooSlow

if TYPE_CHECKING:
    from headrace.gateway.http1.server import HttpServer

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers as they are sent, and of its trailers; as much as the gateway looks at."""

_VERSIONS = {"1.0": 0, "1.1": 1}
_TARGET = re.compile(rb"(/[\x21-\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21-\x22\x24-\x7e]*))?")
"""Path and query as they are sent (RFC 9112, section 3.2.1, and what browsers send beyond it), without a fragment."""


class Connection(asyncio.Protocol):
    """A client's connection.

    A refusal is sent only where the client reads it as the answer to what it is about: where an earlier request's
    answer is still due, or this one's has begun, the connection is closed without.

    Args:
        server: Who holds it.

    Attributes:
        deadline: Loop time at which `expire` is called; infinite while nothing is awaited of the client.
        lost: Whether the connection has ended.
        writing_paused: Whether the client reads more slowly than we write.
    """

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._client, self._scheme = "", "http"
        self._url = b""
        self._headers: Headers = []
        self._hosts = 0
        self._expects_continue = False
        self._in_head = True  # or before it; else in a body or its trailers
        self._unused_bytes = 0  # since the parser last had something for an exchange
        self._deaf = False  # nothing that comes is looked at any more
        self._current: Http1Exchange | None = None  # the one that is answered
        self._receiving: Http1Exchange | None = None  # the one whose body comes
        self._queue: deque[Http1Exchange] = deque()
        self._reading_paused = False
        self._drain: asyncio.Future[None] | None = None
        self.deadline = math.inf
        self.lost = False
        self.writing_paused = False

    # --- from asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop. A connection on which nothing comes is kept like one between two requests."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        if transport.get_extra_info("sslcontext") is not None:
            self._scheme = "https"
        self.deadline = self._server.now + self._server.patience.keep_alive_s
        self._server.hold(self)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop. The parser never gets more than the bytes that a head has left."""
        position, size = 0, len(data)
        while position < size and not self._deaf:
            left = MAX_HEAD_BYTES - self._unused_bytes
            if left <= 0:
                self._refuse(_too_large())
                return
            if self._in_head and not self._unused_bytes and self._current is None:
                self.deadline = self._loop.time() + self._server.patience.head_s
            piece = data if size <= left else data[position : position + left]
            position += len(piece)
            self._unused_bytes += len(piece)
            self._feed(piece)

    def eof_received(self) -> bool:
        """Called by the event loop: a client that sends no more is one that left."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Called by the event loop."""
        self.lost = self._deaf = True
        self.deadline = math.inf
        self._server.forget(self)
        self._queue.clear()
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

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self.writing_paused = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    # --- from the parser ---

    def on_url(self, url: bytes) -> None:
        """Called by the parser, with each piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too, which are dropped."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser: an exchange begins."""
        version = _VERSIONS[self._parser.get_http_version()]
        if self._hosts > 1 or (version and not self._hosts):
            raise ValueError("an HTTP/1.1 request names one host")
        path, query = _split_target(self._url)
        head = RequestHead(
            method=self._parser.get_method().decode("ascii"),
            target=path,
            query=query,
            headers=self._headers,
            client=self._client,
            scheme=self._scheme,
        )
        exchange = Http1Exchange(
            head,
            self,
            version=version,
            keep_alive=self._parser.should_keep_alive() and not self._server.closing,
            expects_continue=self._expects_continue and version > 0,
        )
        self._url, self._headers, self._hosts, self._expects_continue = b"", [], 0, False
        self._in_head = False
        self._unused_bytes = 0
        self._receiving = exchange
        self.deadline = math.inf
        if self._current is None:
            self._begin(exchange)
        else:
            self._queue.append(exchange)
            self._pause_reading()

    def on_body(self, piece: bytes) -> None:
        """Called by the parser."""
        self._unused_bytes = 0
        exchange = self._receiving
        assert exchange is not None
        exchange.take(piece)
        if exchange.wants_no_more:
            self._close_soon(linger=True)
        elif self.deadline != math.inf:
            self._await_body(exchange)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._in_head = True
        self._unused_bytes = 0
        exchange, self._receiving = self._receiving, None
        assert exchange is not None
        exchange.complete_request()
        if exchange.ended:
            self._next(exchange)
        elif exchange is self._current:
            self.deadline = math.inf

    # --- for exchanges ---

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
        if exchange is self._current and not self._queue:
            self._resume_reading()

    def finish(self, exchange: Http1Exchange) -> None:
        """The exchange's answer has ended."""
        if self.lost or exchange is not self._current:
            return
        if not exchange.keep_alive or self._server.closing:
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

    @property
    def idle(self) -> bool:
        """Whether no answer is due."""
        return self._current is None

    def expire(self) -> None:
        """The deadline has passed."""
        if self._transport is None:
            return
        if self._transport.is_closing():
            self._transport.abort()
        elif self._receiving is not None and not self._deaf and not self._receiving.ended:
            self._refuse(_too_slow(self._server.patience.body_s))
        else:
            self.close()

    # --- within ---

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # it was a request all the same, and gets an answer; what follows it is not HTTP
            last = self._queue[-1] if self._queue else self._current
            if last is not None:
                last.keep_alive = False
        except httptools.HttpParserError as error:
            self._refuse(
                MalformedRequest(
                    "This is not a request that can be read as HTTP/1.1.",
                    evidence=f"{error.__context__ or error}.",
                    fix="Send it with an HTTP client; a proxy in between must speak HTTP/1.1 to this server.",
                )
            )

    def _begin(self, exchange: Http1Exchange) -> None:
        self._current = exchange
        exchange.task = self._server.run(exchange)
        if not exchange.request_complete:
            self._await_body(exchange)

    def _next(self, exchange: Http1Exchange) -> None:
        """The exchange is over and its connection is kept."""
        if exchange is not self._current:
            return
        if self._queue:
            self._begin(self._queue.popleft())
        else:
            self._current = None
            patience = self._server.patience
            self.deadline = self._server.now + (patience.head_s if self._unused_bytes else patience.keep_alive_s)
        if not self._queue:
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
            self.send_if_open(_refusal(error, self.date_line))
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


def _split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target.

    Raises:
        ValueError: It is neither a path nor a whole URL, or has bytes that no URL has.
    """
    found = _TARGET.fullmatch(target)
    if found is not None:
        return found[1], found[2] or b""
    if not target.isascii():
        raise ValueError("the request's target is not ASCII")
    url = httptools.parse_url(target)  # a whole URL, as proxies are sent (RFC 9112, section 3.2.2)
    if url.path is None and url.host is None:
        raise ValueError("the request's target is no path")
    return url.path or b"/", url.query or b""


def _refusal(error: HeadraceError, date_line: bytes) -> bytes:
    status, document = google_error(error)
    body = msgspec.json.encode(document)
    framing = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return status_line(status) + date_line + framing + body


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        "The request's line and headers are too large.",
        evidence=f"They have more than {MAX_HEAD_BYTES} bytes, which is the limit.",
        fix="Send data in the body, and drop the headers that are not needed.",
    )


def _too_slow(patience_s: float) -> RequestTooSlow:
    return RequestTooSlow(
        "The request's body stopped in its middle.",
        evidence=f"Nothing came for {patience_s:g} s.",
        fix="Send the request again.",
    )
