"""The listening side of TLS: a connection counts from when it is taken, not only once hands were shaken.

``create_server`` tells nobody of a connection before its handshake is over, nor that it failed; so a crowd that never
finds an end with it would take descriptors that nobody counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.gateway.http1.refusal import refusal, without_tls

if TYPE_CHECKING:
    from headrace.gateway.http1.connection import Connection
    from headrace.gateway.http1.server import HttpServer

_LOGGER = logging.getLogger(__name__)

_TAKEN_AT_ONCE = 64
"""Connections in one turn of the event loop; then others have theirs."""

_PAUSE_S = 1.0
"""For descriptors or memory to come back, before another connection is taken."""

_READ_BYTES = 2**16

_UNREAD_PIECES = 64
"""Of a request that was refused, so many pieces are read; who sends more may find no answer."""

_SHORTEST_S = 0.001
"""For a handshake whose first byte came at the last moment: a timeout of nothing is none that a loop takes."""

_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class TlsListener:
    """Takes connections from a listening socket, and shakes hands with each.

    Args:
        server: Whose they are.
        listener: The socket. It does not block.
        tls: What clients are shown.
        connection: Makes what a connection is given to.
    """

    def __init__(
        self,
        server: HttpServer,
        listener: socket.socket,
        tls: ssl.SSLContext,
        connection: Callable[[], Connection],
    ) -> None:
        self._server = server
        self._listener = listener
        self._tls = tls
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loop.add_reader(listener, self._take)

    def close(self) -> None:
        """Take no more connections. Handshakes that have begun go on."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def break_off(self) -> None:
        """End the handshakes that have begun."""
        for handshake in self._handshakes:
            handshake.cancel()

    def _take(self) -> None:
        for _ in range(_TAKEN_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NONE_LEFT:
                    raise
                _LOGGER.warning("no connection can be taken for %g s: %s", _PAUSE_S, error)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_PAUSE_S, self._go_on)
                return
            if self._server.may_shake_hands:
                self._begin(accepted)
            else:  # to tell it why would take a handshake
                accepted.close()

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._take)

    def _begin(self, accepted: socket.socket) -> None:
        connection = self._connection()
        self._server.shake_hands(connection)
        closing = contextlib.ExitStack()  # not the task's: one that is cancelled before its first step does nothing
        closing.callback(accepted.close)
        handshake = self._loop.create_task(self._shake_hands(accepted, connection, closing))
        self._handshakes.add(handshake)

        def over(handshake: asyncio.Task[None]) -> None:
            closing.close()
            self._handshakes.discard(handshake)
            self._server.hands_shaken(connection)

        handshake.add_done_callback(over)

    async def _shake_hands(
        self, accepted: socket.socket, connection: Connection, closing: contextlib.ExitStack
    ) -> None:
        accepted.setblocking(False)
        deadline = self._loop.time() + self._server.patience.head_s
        with contextlib.suppress(OSError):  # the client left, was too slow, or speaks no TLS that is spoken here
            if await self._speaks_tls(accepted, deadline):
                left_s = max(deadline - self._loop.time(), _SHORTEST_S)
                closing.pop_all()  # from here on it is the transport's
                await self._loop.connect_accepted_socket(
                    lambda: connection, accepted, ssl=self._tls, ssl_handshake_timeout=left_s
                )

    async def _speaks_tls(self, accepted: socket.socket, deadline: float) -> bool:
        """Whether what comes may be a handshake. Who begins with a letter, as HTTP does, is told so."""
        async with asyncio.timeout_at(deadline):
            await self._readable(accepted)
        if not accepted.recv(1, socket.MSG_PEEK).isalpha():
            return True
        async with asyncio.timeout(self._server.patience.linger_s):
            await self._refuse(accepted)
        return False

    async def _readable(self, accepted: socket.socket) -> None:
        came = asyncio.Event()
        self._loop.add_reader(accepted, came.set)
        try:
            await came.wait()
        finally:
            self._loop.remove_reader(accepted)

    async def _refuse(self, accepted: socket.socket) -> None:
        answer = refusal(without_tls(), self._server.date_line, self._server.marks([]))
        await self._loop.sock_sendall(accepted, answer)
        accepted.shutdown(socket.SHUT_WR)
        # Closed while bytes are unread, the connection would take the answer along.
        for _ in range(_UNREAD_PIECES):
            if not await self._loop.sock_recv(accepted, _READ_BYTES):
                return
            await asyncio.sleep(0)  # where there is more already, the line above does not wait
