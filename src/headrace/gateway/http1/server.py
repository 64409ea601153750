"""The listening side: connections, their deadlines, and their end."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import socket
import ssl
import time
from collections.abc import Callable

from headrace.gateway.exchange import ClientGone, Handler
from headrace.gateway.http1.answer import Http1Exchange
from headrace.gateway.http1.connection import Connection
from headrace.gateway.http1.patience import Patience
from headrace.gateway.http1.tls_listener import TlsListener
from headrace.gateway.request_head import Headers

_LOGGER = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that may wait to be taken."""

TURNED_AWAY_AT_ONCE = 64
"""Connections over the limit that are waited for until they have read why; each holds a descriptor meanwhile. With TLS,
those are the only ones over it that hands are shaken with."""


class HttpServer:
    """Serves HTTP/1.1 to a handler of exchanges. To be made and used inside a running event loop.

    Args:
        handler: Answers each request. It is cancelled when its client hangs up.
        patience: How long clients are waited for.
        max_connections: How many may be open at once; one more is told so, and closed. None: any number.
        marks: What the server's own answers, which refuse what the handler never sees, say in headers besides; by those
            of the request, as far as they have come.

    Attributes:
        connections: All that are open.
        shaking_hands: Connections whose TLS handshake is under way; they count as if they were open.
        now: Loop time, as of the last look at the deadlines.
        date_line: What answers say of the time, of the same moment.
        retired: Whether every answer says that its connection closes.
        closed: Whether no connection is kept, whatever was said.
    """

    def __init__(
        self,
        handler: Handler,
        patience: Patience | None = None,
        *,
        max_connections: int | None = None,
        marks: Callable[[Headers], Headers] = lambda _: [],
    ) -> None:
        self._handler = handler
        self.marks = marks
        self._max_connections = max_connections
        self._turned_away = 0
        self._loop = asyncio.get_running_loop()
        self._listening: list[asyncio.Server | TlsListener] = []
        self._tls_listeners: list[TlsListener] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.patience = patience or Patience()
        self.connections: set[Connection] = set()
        self.shaking_hands: set[Connection] = set()
        self.retired = self.closed = False
        self._look()

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Take connections from a listening socket, of TCP or of the unix kind; from one more at each call."""
        listener.setblocking(False)
        if tls is not None:
            listener.listen(BACKLOG)
            self._tls_listeners.append(TlsListener(self, listener, tls, self._connection))
            self._listening.append(self._tls_listeners[-1])
        elif listener.family == socket.AF_UNIX:
            self._listening.append(await self._loop.create_unix_server(self._connection, sock=listener))
        else:
            self._listening.append(await self._loop.create_server(self._connection, sock=listener, backlog=BACKLOG))

    def stop_accepting(self) -> None:
        """Take no more connections; those that are there go on."""
        for listening in self._listening:
            listening.close()
        self._listening.clear()

    def retire(self) -> None:
        """Leave new requests to another server: take no more connections, and end those that are kept.

        A client that was told that its connection is kept may send a request before it hears of anything else: that one
        is answered, and the answer says that the connection closes. Where none comes within `Patience.last_call_s`, the
        connection closes between two requests.
        """
        self.stop_accepting()
        self.retired = True
        for connection in self.connections:
            connection.last_call()

    @property
    def keep_alive_s(self) -> float:
        """How long a connection is kept for its next request."""
        return self.patience.last_call_s if self.retired else self.patience.keep_alive_s

    async def emptied(self) -> None:
        """Wait until the last connection has ended; after `retire` each does when its last answer has."""
        await self._empty.wait()

    async def close(self, timeout_s: float | None = None) -> None:
        """End: connections without a request at once, the others when their answer has ended.

        Args:
            timeout_s: After it, those that are left are cut off; None waits for all of them.
        """
        self.retire()
        self.closed = True
        for listener in self._tls_listeners:
            listener.break_off()
        for connection in [connection for connection in self.connections if connection.idle]:
            connection.close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            if self._ticker is not None:
                self._ticker.cancel()

    # --- for connections ---

    def run(self, exchange: Http1Exchange) -> asyncio.Task[None]:
        """Answer an exchange."""
        return self._loop.create_task(self._serve(exchange))

    def hold(self, connection: Connection) -> None:
        """A connection is there. One too many is told so."""
        self._empty.clear()
        self.shaking_hands.discard(connection)
        self.connections.add(connection)
        if self._max_connections is not None and self._held > self._max_connections:
            self._turned_away += 1
            connection.turn_away(self._max_connections, linger=self._turned_away <= TURNED_AWAY_AT_ONCE)

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        self._turned_away -= connection.turned_away
        self._note_empty()

    @property
    def may_shake_hands(self) -> bool:
        """Whether there is room for one more connection, or it can be told that there is none."""
        limit = self._max_connections
        return limit is None or self._held + self._turned_away < limit + TURNED_AWAY_AT_ONCE

    def shake_hands(self, connection: Connection) -> None:
        """A connection will be there, if its handshake goes well."""
        self._empty.clear()
        self.shaking_hands.add(connection)

    def hands_shaken(self, connection: Connection) -> None:
        """A handshake is over, however it went."""
        self.shaking_hands.discard(connection)
        self._note_empty()

    # --- within ---

    @property
    def _held(self) -> int:
        """Connections that have, or will have, a place."""
        return len(self.connections) + len(self.shaking_hands) - self._turned_away

    def _note_empty(self) -> None:
        if not self.connections and not self.shaking_hands:
            self._empty.set()

    def _connection(self) -> Connection:
        return Connection(self)

    async def _serve(self, exchange: Http1Exchange) -> None:
        task = exchange.task
        assert task is not None
        self._tasks.add(task)
        try:
            await self._handler(exchange)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # Cancelled because the client left: that ends here. By anybody else as well (shutdown): that goes on up.
            if not exchange.client_left or task.uncancel() > 0:
                raise
        except Exception:
            _LOGGER.exception("a handler of requests failed")
        finally:
            self._tasks.discard(task)  # here and not by a callback, for which the loop would have to turn once more
            exchange.abort()

    def _look(self) -> None:
        """Look at all deadlines, and at the clock."""
        self.now = self._loop.time()
        self.date_line = b"date: %b\r\n" % email.utils.formatdate(time.time(), usegmt=True).encode("ascii")
        for connection in [each for each in self.connections if each.deadline <= self.now]:
            connection.expire()
        for connection in [each for each in self.connections if each.reading_deadline <= self.now]:
            connection.expire_reading()
        self._ticker = self._loop.call_later(self.patience.look_every_s, self._look)
