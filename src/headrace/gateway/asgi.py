"""The gateway behind an ASGI server: the one file that knows ASGI.

Trailers, upgrades and WebSockets are not carried. The head is parsed before this file sees it: to bound what is
held meanwhile is up to the server under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from headrace.gateway.exchange import ClientGone, Exchange, Handler, Headers, RequestHead

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def asgi_app(handler: Handler) -> AsgiApp:
    """The handler as an ASGI application."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _serve(handler, scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1003})

    return app


async def _serve(handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
    exchange = AsgiExchange(scope, receive, send)
    try:
        await handler(exchange)
    except ClientGone:
        pass
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        # Cancelled because the client left: that ends here. By anybody else as well (shutdown): that goes on up.
        if not exchange.client_left or task.uncancel() > 0:
            raise
    finally:
        exchange.stop_watching()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class AsgiExchange(Exchange):
    """An exchange over ASGI's `receive` and `send`.

    Once the request's body is read, a watcher waits for the disconnect and cancels the task that made this object.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        self.head = RequestHead(
            method=scope["method"],
            target=scope.get("raw_path") or scope["path"].encode(),
            query=scope["query_string"],
            headers=scope["headers"],
            client=client[0] if client else "",
            scheme=scope.get("scheme", "http"),
        )
        self.client_left = False
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._body_read = False
        self._watcher: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        """The next piece of the request's body; empty at its end."""
        while not self._body_read:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if not message.get("more_body", False):
                self._body_read = True
                self._watcher = asyncio.create_task(self._watch())
            if piece := message.get("body", b""):
                return bytes(piece)
        return b""

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        self.started = True
        await self._deliver({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body."""
        await self._deliver({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, piece: bytes = b"") -> None:
        """Send the last piece."""
        self.ended = True
        await self._deliver({"type": "http.response.body", "body": piece, "more_body": False})

    def abort(self) -> None:
        """End without the last piece: the server then closes the connection, and chunked framing shows the cut."""
        self.ended = True

    def stop_watching(self) -> None:
        """Let go of the connection."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _deliver(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise ClientGone from error
        except RuntimeError as error:
            # uvloop's word for a connection that closed in this turn of the loop, before anybody was told of it.
            if "handler is closed" not in str(error):
                raise
            raise ClientGone from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.ended and self._task is not None:
            self.client_left = True
            self._task.cancel()
