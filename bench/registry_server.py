"""The control plane's API on a database, for `registry.py`: without a reconciler, there is nothing to reconcile.

Prints its port.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from pathlib import Path

import uvloop

from headrace.api import create_app
from headrace.resources.layout import Layout
from headrace.server.asgi import server
from headrace.server.process import settle
from headrace.store import Store


class Nobody:
    """Stands where the reconciler stands."""

    def wake(self) -> None:
        """Nothing is done."""


async def serve(url: str, folder: Path) -> None:
    """Until the process is told to end."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    store = Store(url)
    await store.count_rows()  # as control does
    app = create_app(store, Nobody(), Layout(folder), internal_token="bench")  # type: ignore[arg-type]
    api = server(app)
    serving = asyncio.create_task(api.serve(sockets=[listener]))
    await api.accepting.wait()
    settle()  # as control does
    print(listener.getsockname()[1], flush=True)
    await serving


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="headrace-registry-") as made:
        uvloop.run(serve(sys.argv[1], Path(made)))
