"""An HTTP/1.1 client for one upstream server: kept connections, streaming both ways, cancellation by closing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType

from headrace.gateway.upstream.address import Address
from headrace.gateway.upstream.connection import Connection, MoreTime, Taker
from headrace.gateway.upstream.dial import Outside, dial
from headrace.gateway.upstream.errors import NoAnswer, TimedOut, Unreachable, Untrusted
from headrace.gateway.upstream.masking import Masking, Secret
from headrace.gateway.upstream.request import UpstreamRequest

MAX_KEPT_CONNECTIONS = 256


class UpstreamAnswer:
    """An answer that has begun. Leaving the context gives the connection back, or closes it before the end.

    Args:
        upstream: Where it comes from.
        connection: What it comes by.
        pump: What still sends the request's body, if anything does.
        secret: What is hidden in its headers and body.
        stall_timeout_s: How long nothing may come of its body while somebody reads; None: any time.
    """

    def __init__(
        self,
        upstream: Upstream,
        connection: Connection,
        pump: asyncio.Task[None] | None,
        secret: Secret,
        stall_timeout_s: float | None,
    ) -> None:
        self.status = connection.status
        self.headers = connection.headers
        self.secret = secret
        self._masking: Masking | None = None
        if secret.forms:
            self.headers = [(name, secret.hide(value)) for name, value in connection.headers]
            self._masking = Masking(secret)
        self._upstream = upstream
        self._connection = connection
        self._pump = pump
        self._stall_timeout_s = stall_timeout_s

    def header(self, name: bytes) -> bytes:
        """The first value under this name (lower case); empty without one."""
        for key, value in self.headers:  # several times a request: a generator takes twice as long
            if key == name:
                return value
        return b""

    @property
    def over(self) -> bool:
        """Whether all of the body was read: what `read` tells by an empty piece, without a call for it."""
        return self._masking is None and self._connection.read_out

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end.

        Raises:
            BrokeOff: It does not come to its end.
            Stalled: It stood still for longer than it may.
        """
        if self._masking is None:
            return await self._connection.read(self._stall_timeout_s)
        while piece := await self._connection.read(self._stall_timeout_s):
            if shown := self._masking.feed(piece):
                return shown
        return self._masking.rest()

    async def pipe(self, take: Taker) -> bool:
        """Hand the pieces of the body to `take` as they come, from within the event loop: nobody is woken for each.

        Returns:
            Whether the body has ended. Else `take` said that it wants no more for now; the next call goes on.

        Raises:
            BrokeOff: It does not come to its end.
            Stalled: It stood still for longer than it may.
            Exception: Whatever `take` raised.
        """
        masking = self._masking
        if masking is None:
            return await self._connection.pipe(take, self._stall_timeout_s)

        def take_masked(piece: bytes) -> bool:
            shown = masking.feed(piece)
            return take(shown) if shown else True

        ended = await self._connection.pipe(take_masked, self._stall_timeout_s)
        if ended and (rest := masking.rest()):
            take(rest)
        return ended

    def close(self) -> None:
        """Take no more: at the end the connection is kept, before it the server sees it close."""
        request_sent = self._pump is None or self._pump.done()
        if self._pump is not None:
            self._pump.cancel()
        self._upstream.give_back(self._connection, usable=request_sent)

    async def __aenter__(self) -> UpstreamAnswer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()


class Upstream:
    """One server and the connections that are kept to it.

    Args:
        address: Where it listens.
        connect_timeout_s: How long a new connection may take, with its TLS handshake.
        outside: What holds for a server that is not ours; None for engines and control.
        key: What such a server must not repeat: it is hidden in its answers.
    """

    def __init__(
        self, address: Address, *, connect_timeout_s: float, outside: Outside | None = None, key: str = ""
    ) -> None:
        self.address = address
        self._secret = Secret(key)
        self._outside = outside
        self._connect_timeout_s = connect_timeout_s
        self._kept: list[Connection] = []
        self._closed = False

    async def send(
        self,
        request: UpstreamRequest,
        *,
        timeout_s: float,
        more_s: MoreTime | None = None,
        stall_timeout_s: float | None = None,
    ) -> UpstreamAnswer:
        """Send a request and wait until the first byte of the answer's body is there, or its end.

        A kept connection that turns out to be closed before one byte was answered is replaced once; if there is no
        other to be had then, that is no answer. Cancelling this closes the connection.

        Args:
            request: What to send.
            timeout_s: How long the answer may take to begin, with whatever connections that takes.
            more_s: Gives it more time, where that is over; None: there is none.
            stall_timeout_s: How long nothing may come of an answer that has begun; None: any time.

        Raises:
            Unreachable: There is no connection to be had.
            ExternalAddressForbidden: A server that is not ours is where none may be.
            NoAnswer: The connection ended before the answer began.
            TimedOut: The answer did not begin in that time.
        """
        deadline = time.monotonic() + timeout_s
        broken = ""
        if self._kept and request.repeatable:
            connection = self._kept.pop()
            try:
                return await self._exchange(connection, request, timeout_s, more_s, stall_timeout_s)
            except NoAnswer as error:
                over = time.monotonic() >= deadline  # it had more time, and there is none to connect anew
                if over or connection.answered or not isinstance(request.body, bytes):
                    raise
                broken = str(error)
        try:
            connection = await self._connect(deadline - time.monotonic())
        except Unreachable as error:
            if not broken or isinstance(error, Untrusted):
                raise
            raise NoAnswer(f"{broken} {error}") from error  # it was sent, and may be what ended the server
        return await self._exchange(connection, request, deadline - time.monotonic(), more_s, stall_timeout_s)

    async def _exchange(
        self,
        connection: Connection,
        request: UpstreamRequest,
        timeout_s: float,
        more_s: MoreTime | None,
        stall_timeout_s: float | None,
    ) -> UpstreamAnswer:
        pump = None
        try:
            connection.start(request.encode(self.address), head_only=request.method == "HEAD")
            if not isinstance(request.body, bytes):
                pump = asyncio.create_task(_pump(connection, request.body, chunked=request.length_bytes is None))
                pump.add_done_callback(_failure_of)
            await connection.begun(timeout_s, more_s)
        except BaseException:
            connection.abort()
            if pump is not None:
                pump.cancel()
                if failure := _failure_of(pump):
                    try:
                        raise failure from None  # the body could not be read: that is why there is no answer
                    finally:
                        del failure, pump  # else its traceback and this frame would hold each other
            raise
        return UpstreamAnswer(self, connection, pump, self._secret, stall_timeout_s)

    async def _connect(self, left_s: float) -> Connection:
        timeout_s = min(self._connect_timeout_s, left_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await dial(self.address, lambda: Connection(self._forget), self._outside)
        except TimeoutError as error:
            kind = "TLS connection" if self.address.tls else "connection"
            failure = TimedOut if left_s < self._connect_timeout_s else Unreachable
            raise failure(f"No {kind} within {timeout_s:.3g} s.") from error

    def give_back(self, connection: Connection, *, usable: bool) -> None:
        """Keep a connection for the next request if it can carry one; else close it."""
        if usable and connection.reusable and not self._closed and len(self._kept) < MAX_KEPT_CONNECTIONS:
            self._kept.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close the kept connections. Answers under way come to their end."""
        self._closed = True
        for connection in list(self._kept):
            connection.abort()

    def _forget(self, connection: Connection) -> None:
        if connection in self._kept:
            self._kept.remove(connection)


async def _pump(connection: Connection, body: AsyncIterator[bytes], *, chunked: bool) -> None:
    """Send the pieces of a body as they come. When they cannot be had, the server sees the connection close."""
    try:
        async for piece in body:
            await connection.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await connection.write(b"0\r\n\r\n")
    except BaseException:
        connection.abort()
        raise


def _failure_of(pump: asyncio.Task[None]) -> BaseException | None:
    return pump.exception() if pump.done() and not pump.cancelled() else None
