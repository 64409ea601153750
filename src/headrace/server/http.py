"""HTTP/1.1 as uvicorn reads it, with an end to what one request may hold before anybody has looked at it.

Uvicorn and the parser under it (httptools) keep a request's head, and a header that is not complete, for as long as it
grows; no key has been seen by then.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headrace.contracts.vertex.errors import google_error
from headrace.resources.errors import HeadersTooLarge, HeadraceError, MalformedRequest

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers as they are sent, and of its trailers; as much as the gateway looks at."""

HEAD_TIMEOUT_S = 30.0
"""From the first byte of a head to its end; Apache's `mod_reqtimeout` gives a head 20 to 40 s."""

LINGER_S = 1.0
"""How long a connection is still read from after its request was refused: closed at once, with bytes of the client
under way, it would be reset, and the client might never see why."""


class BoundedHttp(HttpToolsProtocol):
    """One connection of a client. Heads are bounded in size and time, and what is refused is told in JSON.

    A refusal is sent only where the client reads it as the answer to what it is about: where an earlier request's
    answer is still due, or this one's has begun, the connection is closed without.

    Attributes:
        head_timeout_s: From the first byte of a head to its end.
    """

    head_timeout_s = HEAD_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True  # or before it; else in a body or its trailers
        self._unused_bytes = 0  # since the parser last had something for the application
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False

    # --- from asyncio ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Called by the event loop. A connection on which nothing comes is kept like one between two requests."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop. The parser never gets more than the bytes that a head has left."""
        position = 0
        while position < len(data) and not self._refused and not self.transport.is_closing():
            left = MAX_HEAD_BYTES - self._unused_bytes
            if left <= 0:
                self._refuse(_too_large())
                return
            if self._in_head and self._deadline is None:
                self._await_head()
            piece = data[position : position + left]
            position += len(piece)
            self._unused_bytes += len(piece)
            super().data_received(piece)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._forget_deadline()
        super().connection_lost(exc)

    # --- from the parser ---

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too, which are dropped."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        super().on_headers_complete()
        self._in_head = False
        self._unused_bytes = 0
        self._forget_deadline()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._unused_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._in_head = True
        self._unused_bytes = 0
        super().on_message_complete()

    # --- refusing ---

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn while it handles the parser's error."""
        error = sys.exc_info()[1]
        self._refuse(
            MalformedRequest(
                "This is not a request that can be read as HTTP/1.1.",
                evidence=f"{error.__context__ or error}." if error else msg,
                fix="Send it with an HTTP client; a proxy in between must speak HTTP/1.1 to this server.",
            )
        )

    def _refuse(self, error: HeadraceError) -> None:
        self._refused = True
        self._forget_deadline()
        self._unset_keepalive_if_required()
        if self._can_answer():
            self._answer(error)
        if not self._in_head:  # the application has begun on it: as if the client had left
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._deadline = self.loop.call_later(LINGER_S, self.transport.close)

    def _answer(self, error: HeadraceError) -> None:
        status, document = google_error(error)
        body = msgspec.json.encode(document)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)

    def _can_answer(self) -> bool:
        """Whether the request that is being read is the next to be answered, and its answer has not begun."""
        if self.pipeline:
            return False
        if self._in_head:
            return not self._answering
        return not self.cycle.response_started

    @property
    def _answering(self) -> bool:
        """Whether the answer to the last complete head is still due."""
        return self.cycle is not None and not self.cycle.response_complete

    # --- time ---

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_timeout_s, self._give_up_on_head)

    def _give_up_on_head(self) -> None:
        if self._answering:  # bytes behind a request never end its answer
            self._await_head()
        else:
            self.transport.close()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        "The request's line and headers are too large.",
        evidence=f"They have more than {MAX_HEAD_BYTES} bytes, which is the limit.",
        fix="Send data in the body, and drop the headers that are not needed.",
    )
