"""Uvicorn as a part of a process that keeps its own hands on signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

KEEP_ALIVE_S = 75
"""Longer than the 60 s of common load balancers, so that it is never us who close first under their hands."""


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals alone and says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then sets `accepting`."""
        await super().startup(sockets=sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: the process decides what a signal means."""
        yield


def server(app: Any, *, drain_timeout_s: int | None = None) -> Server:
    """A server for an ASGI application: HTTP/1.1 by httptools, no access log of its own.

    Only our own processes connect to it, by a socket in a folder of mode 0700; what users send has been through the
    gateway, which bounds it.

    Args:
        app: The application.
        drain_timeout_s: How long running requests may go on once it is told to stop; None waits for all of them.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody's word about who called is taken: the gateway itself writes these headers
        date_header=True,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_timeout_s,
    )
    return Server(config)
