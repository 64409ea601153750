"""One HTTP/1.1 connection to an upstream server: an asyncio protocol around httptools' parser.

A connection carries one exchange at a time: `start`, `begun`, then `read` until it is empty or `pipe` until it is true.
Reading from the socket pauses while more than `READ_AHEAD_BYTES` wait to be read; writing waits while the socket is
full.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TypeAlias, cast

import httptools

from headrace.gateway.request_head import Headers
from headrace.gateway.upstream.errors import BrokeOff, NoAnswer, Stalled, TimedOut, UpstreamError

READ_AHEAD_BYTES = 64 * 1024
ANSWER_HEAD_BYTES = 64 * 1024
"""Of an answer's head, and of whatever else is neither that nor body: trailers, extensions of chunks. The parser keeps
half a header and says nothing of it, so what has come is counted too."""

Taker: TypeAlias = Callable[[bytes], bool]
"""Is handed a piece of a body, and says whether it wants the next one as soon as it comes."""

MoreTime: TypeAlias = Callable[[], float]
"""Is asked when an answer has not begun in time, and says for how many seconds more it may be waited for; 0: none."""


class Connection(asyncio.Protocol):
    """A connection and the answer that it is receiving.

    Args:
        on_lost: Called once when the connection ends.

    Attributes:
        answered: Whether one byte of the current exchange's answer has come.
        complete: Whether the current answer has come to its end.
        lost: Whether the connection has ended.
    """

    def __init__(self, on_lost: Callable[[Connection], None]) -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._deadline = math.inf
        self._timeout_s = 0.0
        self._more_s: MoreTime | None = None
        self.lost = False
        self.complete = True
        self._reset(head_only=False)

    def _reset(self, *, head_only: bool) -> None:
        self.status = 0
        self.headers: Headers = []
        self.answered = False
        self._head_bytes = 0
        self._idle_bytes = 0
        self._head_only = head_only
        self._begun = False
        self._head_complete = False
        self._interim = False
        self._until_close = False
        self._reusable = False
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._taker: Taker | None = None
        self._taker_failed: Exception | None = None
        self._error: UpstreamError | None = None

    # --- for the client ---

    def start(self, head: bytes, *, head_only: bool) -> None:
        """Begin an exchange: forget the last one and send the request's head, with what is there of the body.

        Args:
            head: The bytes to send.
            head_only: Whether the answer will have no body whatever its headers say: it is for ``HEAD``.
        """
        assert self._transport is not None
        assert self.complete
        self._reset(head_only=head_only)
        self.complete = False
        self._transport.write(head)

    async def write(self, piece: bytes) -> None:
        """Send more of the request's body; waits while the server reads more slowly than we write."""
        assert self._transport is not None
        if self.lost:
            return  # the reading side tells why
        self._transport.write(piece)
        if self._writing_paused and not self.lost:
            self._writer = self._loop.create_future()
            await self._writer

    async def begun(self, timeout_s: float, more_s: MoreTime | None = None) -> None:
        """Wait until the answer's head and the first byte of its body are there (or its end, if it has none).

        Raises:
            NoAnswer: The connection ended first.
            TimedOut: It took longer, and `more_s` gave it no more.
        """
        self._more_s = more_s
        try:
            await self._some(timeout_s)
        finally:
            self._more_s = None
        self._begun = True

    async def read(self, timeout_s: float | None = None) -> bytes:
        """What has come of the answer's body since the last call, at least one byte; empty at its end.

        Args:
            timeout_s: How long nothing may come while this waits; None: any time.

        Raises:
            BrokeOff: The connection ended before the answer did.
            Stalled: Nothing came for too long; `abort` is the caller's to call.
        """
        if not self._pieces:
            if not self.complete:
                await self._some(timeout_s)
            if not self._pieces:
                return b""
        return self._taken()

    async def pipe(self, take: Taker, timeout_s: float | None = None) -> bool:
        """Hand on what comes of the answer's body in the moment in which it comes, without waking whoever awaits this.

        Args:
            take: Gets each piece, at least one byte.
            timeout_s: How long nothing may come while this waits; None: any time.

        Returns:
            Whether the body has ended. Else `take` wants no more for now: what comes is held until the next call.

        Raises:
            BrokeOff: The connection ended before the answer did.
            Stalled: Nothing came for too long; `abort` is the caller's to call.
            Exception: Whatever `take` raised.
        """
        if self._pieces and not take(self._taken()):
            return False
        self._taker = take
        try:
            while self._taker is not None:
                if self.complete:
                    return True
                await self._some(timeout_s)
        finally:
            self._taker = None
            failed, self._taker_failed = self._taker_failed, None
        if failed is not None:
            try:
                raise failed
            finally:
                del failed  # its traceback holds this frame, and the two would hold each other
        return False

    @property
    def read_out(self) -> bool:
        """Whether the answer has come to its end, and nothing of it waits to be read."""
        return self.complete and not self._pieces

    @property
    def reusable(self) -> bool:
        """Whether another exchange can follow."""
        return self.complete and self._reusable and not self.lost and not self._pieces

    def abort(self) -> None:
        """End the connection at once: the server sees that nobody wants its answer."""
        if self._transport is not None:
            self._transport.abort()

    # --- from asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self.complete:  # bytes that nobody asked for
            self._reusable = False
            self.abort()
            return
        self.answered = True
        self._idle_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"It sent what is not HTTP/1.1: {error.__context__ or error}.")
            self.abort()
        if self._taker is not None and self._pieces:  # all of what came at once, in one piece
            self._hand_on(self._taker)
        if self._idle_bytes > ANSWER_HEAD_BYTES and not self.complete:
            self._fail(f"It sent {self._idle_bytes:,} bytes that are no head that ends, and no body.")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        if not self.complete:
            if self._until_close and exc is None and self._error is None:
                self.complete = True
            else:
                self._fail("The connection was closed." if exc is None else f"{type(exc).__name__}: {exc}.")
        self._wake()
        self.resume_writing()
        self._on_lost(self)
        del self._parser  # which holds this: nobody need search for the two

    def pause_writing(self) -> None:
        """Called by the event loop."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._writing_paused = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    # --- from the parser ---

    def on_message_begin(self) -> None:
        """Called by the parser; a second answer to one request taints the connection."""
        if self.complete:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too, which are dropped."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > ANSWER_HEAD_BYTES:
            raise ValueError("the answer's headers are too long")
        if not self._head_complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise ValueError("the answer switches protocols")
            self._interim = True
            self.headers = []
            return
        if self.complete:
            return
        self.status = status
        self._head_complete = True
        self._idle_bytes = 0
        self._reusable = self._parser.should_keep_alive() and not self._head_only
        names = {name for name, _ in self.headers}
        framed = b"content-length" in names or b"transfer-encoding" in names
        self._until_close = not framed and status not in (204, 304)
        if self._head_only:
            self.complete = True
        self._wake()

    def on_body(self, piece: bytes) -> None:
        """Called by the parser."""
        if self.complete:
            return
        self._idle_bytes = 0
        self._pieces.append(piece)
        if self._taker is not None:
            return
        self._waiting_bytes += len(piece)
        if self._waiting_bytes > READ_AHEAD_BYTES and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._interim:
            self._interim = False
            return
        self.complete = True
        self._wake()

    # --- within ---

    def _taken(self) -> bytes:
        """All that was held of the body, in one piece; the socket is read again."""
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._waiting_bytes = 0
        if self._reading_paused and self._transport is not None and not self.lost:
            self._reading_paused = False
            self._transport.resume_reading()
        return piece

    def _hand_on(self, take: Taker) -> None:
        """Give what came to who waits for it in `pipe`; wake them only if they want no more, or failed."""
        if self._deadline != math.inf:
            self._deadline = self._loop.time() + self._timeout_s
        try:
            if take(self._taken()):
                return
        except Exception as error:
            self._taker_failed = error
        self._taker = None
        self._wake()

    async def _some(self, timeout_s: float | None) -> None:
        """Wait for a piece of the body, for its end, or until the taker wants no more; at most so long."""
        taking = self._taker is not None
        if timeout_s is not None and not self.lost:
            self._expect_within(timeout_s)
        try:
            while not (self.complete or self._pieces or (taking and self._taker is None)):
                if self._error is not None:
                    raise type(self._error)(*self._error.args)  # one whose traceback this does not hold
                self._reader = self._loop.create_future()
                await self._reader
        finally:
            self._deadline = math.inf

    def _expect_within(self, timeout_s: float) -> None:
        """Set the deadline. The timer that looks at it goes on from wait to wait: a new one each would cost more."""
        self._timeout_s = timeout_s
        self._deadline = self._loop.time() + timeout_s
        if self._timer is None or self._timer_at > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        """Called by the timer: the deadline may have been moved or lifted since it was set."""
        self._timer = None
        if self._deadline == math.inf:
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        elif not (self.complete or self._pieces):  # else it came in the last moment
            if self._more_s is not None and (more_s := self._more_s()) > 0.0:
                self._timeout_s += more_s
                self._deadline += more_s
                self._set_timer()
                return
            told = f"{self._timeout_s:g} s."
            stalled = Stalled(f"Nothing more of it came for {told}")
            self._error = stalled if self._begun else TimedOut(f"No answer began within {told}")
            self._wake()

    def _fail(self, evidence: str) -> None:
        if self._error is None:
            self._error = BrokeOff(evidence) if self._begun or self._pieces else NoAnswer(evidence)
        self._reusable = False
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
