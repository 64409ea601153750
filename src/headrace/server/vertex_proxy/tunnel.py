"""A client's connection to the proxy: its ``CONNECT``, its TLS handshake, then whatever it leads to.

TLS ends here. OpenSSL picks the protocol (ALPN): HTTP/1.1 where a client offers it, which goes to a gateway; else
HTTP/2, which only gRPC's clients offer alone, and which goes to the process that speaks gRPC.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import msgspec

from headrace.gateway.upstream import Address
from headrace.server.tls.files import FollowedCertificate
from headrace.server.vertex_proxy.connect import CONNECTED, Refusal, read_connect

_LOGGER = logging.getLogger(__name__)

HTTP_1, HTTP_2 = "http/1.1", "h2"
HEAD_TIMEOUT_S = 30.0
HANDSHAKE_TIMEOUT_S = 30.0
_HELD_BYTES = 64 * 1024
"""What is taken from one side before the other is there."""


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """Where connections lead to.

    Attributes:
        gateway: Speaks HTTP/1.1.
        grpc: A unix socket on which gRPC is spoken; empty without.
    """

    gateway: Address
    grpc: str = ""

    @property
    def protocols(self) -> tuple[str, ...]:
        """What a client may choose from, the preferred one first."""
        return (HTTP_1, HTTP_2) if self.grpc else (HTTP_1,)


class Tunnels:
    """All connections of the proxy.

    Args:
        ways: Where they lead to.
        certificate: What clients are shown.
        most: How many there may be; one more is closed at once.
    """

    def __init__(self, ways: Ways, certificate: FollowedCertificate, *, most: int) -> None:
        self.ways = ways
        self.certificate = certificate
        self._most = most
        self._open: set[_Entrance] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def entrance(self) -> asyncio.Protocol:
        """What takes a new connection."""
        return _Entrance(self)

    def opened(self, entrance: _Entrance) -> bool:
        """Count a connection. Returns whether it may stay."""
        if len(self._open) >= self._most:
            return False
        self._open.add(entrance)
        self._emptied.clear()
        return True

    def lead(self, entrance: _Entrance) -> None:
        """Go on with a connection whose request was answered."""
        task = asyncio.get_running_loop().create_task(entrance.lead())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ended(self, entrance: _Entrance) -> None:
        """A connection is over."""
        self._open.discard(entrance)
        if not self._open:
            self._emptied.set()

    async def close(self, timeout_s: float) -> None:
        """Wait until all connections have ended, as those do whose other end drains; then end what is left."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()
        except TimeoutError:
            for entrance in list(self._open):
                entrance.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Entrance(asyncio.Protocol):
    """A client's connection until its request is answered; then what it leads to."""

    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._near = _End(self._over)
        self._far = _End(self._near.close)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._tunnels.opened(self):
            self._timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self.abort)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        found = read_connect(self._received)
        if found is None or self._transport is None:
            return
        self._stop_timer()
        if isinstance(found, Refusal):
            self._transport.write(found.answer())
            self._transport.close()
            return
        self._transport.pause_reading()  # what comes next is for TLS
        self._transport.write(CONNECTED)
        self._tunnels.lead(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._over()

    def abort(self) -> None:
        """End it at once."""
        for transport in (self._transport, self._near.transport, self._far.transport):
            if transport is not None:
                transport.abort()

    async def lead(self) -> None:
        """Shake hands, and connect the two ends."""
        try:
            await self._connect()
        except (OSError, TimeoutError) as error:  # `ssl.SSLError` is one: a client that does not trust the authority
            _LOGGER.info("a connection came to nothing: %s", error)
            self.abort()
            self._over()

    async def _connect(self) -> None:
        loop, ways = asyncio.get_running_loop(), self._tunnels.ways
        assert self._transport is not None
        assert self._tunnels.certificate.context is not None
        secure = await loop.start_tls(
            self._transport,
            self._near,
            self._tunnels.certificate.context,
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
        )
        if secure is None:
            raise ConnectionResetError("the client left during the handshake")
        self._near.transport = secure
        chosen = secure.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen == HTTP_2:
            await loop.create_unix_connection(lambda: self._far, ways.grpc)
        elif ways.gateway.path:
            await loop.create_unix_connection(lambda: self._far, ways.gateway.path)
        else:
            await loop.create_connection(lambda: self._far, ways.gateway.host, ways.gateway.port)
        self._near.join(self._far)
        self._far.join(self._near)

    def _over(self) -> None:
        self._stop_timer()
        self._far.close()
        self._tunnels.ended(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _End(asyncio.Protocol):
    """One end of a tunnel: what comes here goes out at the other one, no faster than that one takes it.

    Args:
        on_lost: Called when it ends.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self._on_lost = on_lost
        self._other: _End | None = None
        self._held = b""
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def join(self, other: _End) -> None:
        """From now on what comes here goes there."""
        self._other = other
        if self._held:
            other.write(self._held)
            self._held = b""
        self._resume()
        if self.lost:
            other.close()

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.write(data)
            return
        self._held += data
        if len(self._held) > _HELD_BYTES:
            self._pause()

    def write(self, data: bytes) -> None:
        """Send what came at the other end."""
        if self.transport is not None and not self.lost:
            self.transport.write(data)

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other._pause()

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other._resume()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost = True
        self._on_lost()

    def close(self) -> None:
        """End it once all is sent."""
        if self.transport is not None and not self.lost:
            self.transport.close()

    def _pause(self) -> None:
        if self.transport is not None and not self.lost and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self.transport is not None and not self.lost and self._paused:
            self._paused = False
            self.transport.resume_reading()
