"""Servers that stand for somebody else's: with TLS, or with scripted answers."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

EXTERNAL_KEY = "sk-external-0123456789"


def certificate(folder: Path, *names: str) -> Path:
    """A self-signed certificate for these names (``DNS:…``, ``IP:…``), with its key in the same file."""
    key, signed, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=test", "-addext", f"subjectAltName={','.join(names)}"]
    subprocess.run([*command, "-keyout", key, "-out", signed], check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + signed.read_bytes())
    return both


def server_context(pem: Path) -> ssl.SSLContext:
    """What a server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


class Scripted:
    """An ASGI application that answers everything the same way, and remembers what it was asked.

    Attributes:
        asked: Method, path and ``authorization`` of each request.
    """

    def __init__(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.status, self.body = status, body
        self.headers = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        self.asked: list[tuple[str, str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        sent = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.append((scope["method"], scope["path"], sent.get("authorization", "")))
        while (await receive()).get("more_body"):
            pass
        wire = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": wire})
        await send({"type": "http.response.body", "body": self.body})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """It behind uvicorn on a loopback port; yields its address."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(uvicorn.Config(self, log_level="critical", ws="none", lifespan="on"))
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            task = asyncio.create_task(server._serve([listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = server.force_exit = True
                await task
