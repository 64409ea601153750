"""A real HTTP server with a script: for commands that want an answer, and to see what they asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

Answer = tuple[int, Any] | list[bytes]


class ScriptedServer:
    """Answers by ``METHOD /path``; a list of bytes is streamed, chunk by chunk.

    Attributes:
        answers: What to say, or a function of the request's body that says it.
        requests: What was asked: method and path with query, headers, body.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[Any], Answer]] = {}
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.url = ""

    def asked(self, what: str) -> list[Any]:
        """The bodies of all requests to ``METHOD /path``."""
        return [body for line, _, body in self.requests if line.partition("?")[0] == what]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request of ASGI."""
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = json.loads(raw) if raw else None
        line = f"{scope['method']} {scope['path']}"
        query = scope["query_string"].decode()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((f"{line}?{query}" if query else line, headers, body))
        answer = self.answers.get(line, (404, google_error(404, "UNKNOWN_PATH", f"There is no {line}.")))
        answer = answer(body) if callable(answer) else answer
        if isinstance(answer, list):
            await _send_head(send, 200, b"text/event-stream")
            for chunk in answer:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body"})
            return
        await _send_head(send, answer[0], b"application/json")
        await send({"type": "http.response.body", "body": json.dumps(answer[1]).encode()})


async def _send_head(send: Any, status: int, media_type: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", media_type)]})


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[ScriptedServer]:
    """A scripted server on a free port of the loopback; with TLS where there is a certificate and its key to show."""
    app = ScriptedServer()
    with listening(app, certificate) as app.url:
        yield app


@contextmanager
def listening(app: Any, certificate: Path | None = None) -> Iterator[str]:
    """An application of ASGI on a free port of the loopback: its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # who comes before the thread runs waits instead of being refused
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ssl_certfile=certificate))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def google_error(status: int, code: str, message: str, **metadata: str) -> dict[str, Any]:
    """An error as Google's APIs send it."""
    text = " ".join([message, *(f"{name.capitalize()}: {value}" for name, value in metadata.items())])
    return {"error": {"code": status, "message": text, "details": [{"reason": code, "metadata": metadata}]}}


def sse(*events: Any, done: bool = True) -> list[bytes]:
    """Server-sent events, each a chunk of its own."""
    chunks = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return [*chunks, b"data: [DONE]\n\n"] if done else chunks


def chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    """One piece of a streamed chat answer."""
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}
