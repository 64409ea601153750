"""A stand-in engine: OpenAI's wire over HTTP/1.1 with scripted timing and failure, for the gateway's tests and benches.

In a test::

    async with StandIn(tmp_path / "e.sock") as engine:
        engine.script = Script(chunks=3, gated=True)
        engine.gate.release()  # lets one chunk out

By itself: ``python tests/standin.py --uds PATH [--chunks N] [--delay-ms D] [--die-after N] [--hang]``; the token comes
from ``HEADRACE_ENGINE_TOKEN``. A request may bring its own script: ``{"standin": {"chunks": 5, "die_after": 2}}``.
``GET /seen`` tells how many requests began, were answered and were cancelled by a hang-up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import ssl
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Script:
    """How the engine answers generation requests.

    ``delay_ms`` comes before every chunk. ``die_after`` cuts the connection after so many chunks (0: before the first
    byte; a unary answer is cut in its middle). ``fail_after`` ends a stream after so many chunks with an error event of
    type ``fail_type``, and without [DONE], as the shell of our engines does; without a type, with nothing. ``hang``
    never answers. ``gated`` waits for one permit of `StandIn.gate` before each chunk (or before a unary answer).
    ``refuse`` answers with this status instead; ``refuse_short`` does so on the routes that generate nothing.
    """

    chunks: int = 3
    chunk_text: str = "tok "
    delay_ms: float = 0.0
    die_after: int | None = None
    fail_after: int | None = None
    fail_type: str = "server_error"
    hang: bool = False
    gated: bool = False
    refuse: int = 0
    refuse_short: int = 0


@dataclass
class Seen:
    """What the engine has seen of generation requests."""

    began: int = 0
    answered: int = 0
    cancelled: int = 0
    connections: int = 0
    chunks_sent: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


_BACKLOG = 2048
"""What our engines have: connections that may wait to be taken."""

_SHORT_ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
        "model": "served",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    },
    "/tokenize": {"count": 7, "max_model_len": 512, "tokens": [5, 6, 7, 8, 9, 10, 11]},
    "/detokenize": {"prompt": "hi"},
}


class Cut(Exception):
    """The script says to die here."""


class StandIn:
    """The engine. Listens on a unix socket (or on a loopback port) inside ``async with``."""

    def __init__(
        self,
        uds: Path | None = None,
        *,
        port: int = 0,
        token: str = "",
        name: str = "served",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.uds, self.port, self.token, self.name, self._tls = uds, port, token, name, tls
        self.script = Script()
        self.seen = Seen()
        self.gate = asyncio.Semaphore(0)
        self.changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> StandIn:
        if self.uds is not None:
            self._server = await asyncio.start_unix_server(self._connected, str(self.uds), backlog=_BACKLOG)
        else:
            self._server = await asyncio.start_server(
                self._connected, "127.0.0.1", self.port, backlog=_BACKLOG, ssl=self._tls
            )
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.drop_connections()
        if self.uds is not None:
            self.uds.unlink(missing_ok=True)

    @property
    def address(self) -> str:
        """Where it listens, as a snapshot has it."""
        return f"unix:{self.uds}" if self.uds is not None else f"http://127.0.0.1:{self.port}"

    def drop_connections(self) -> None:
        """Close every connection, as an engine that restarts does."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def until(self, **counts: int) -> None:
        """Wait until each of these counts of `seen` is reached."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: all(getattr(self.seen, name) >= n for name, n in counts.items()))

    async def _count(self, **more: int) -> None:
        for name, n in more.items():
            setattr(self.seen, name, getattr(self.seen, name) + n)
        async with self.changed:
            self.changed.notify_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self._count(connections=1)
        try:
            ahead = b""  # what of the next request came while the last one was answered
            while True:
                ahead = await self._one_request(reader, writer, ahead)
        except (Cut, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ahead: bytes) -> bytes:
        head = (ahead + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if path == "/health":
            _send(writer, 200, {"status": "ready"})
        elif self.token and headers.get("authorization") != f"Bearer {self.token}":
            _send(writer, 401, _error("A bearer token is missing or wrong.", "invalid_api_key"))
        elif path == "/seen":
            _send(writer, 200, asdict(self.seen))
        elif path == "/v1/models":
            _send(writer, 200, {"object": "list", "data": [{"id": self.name, "object": "model"}]})
        elif method == "POST" and path in ("/v1/chat/completions", "/v1/completions"):
            return await self._generate(reader, writer, headers, json.loads(body), chat="chat" in path)
        elif method == "POST" and path in _SHORT_ANSWERS:
            self.seen.bodies.append(json.loads(body))
            if self.script.refuse_short:
                _send(writer, self.script.refuse_short, _error("It cannot be read.", "invalid_value"))
            else:
                _send(writer, 200, _SHORT_ANSWERS[path])
            await self._count(began=1, answered=1)
        else:
            _send(writer, 404, _error(f"{method} {path}: Not Found", "not_found"))
        await writer.drain()
        return b""

    async def _generate(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        headers: dict[str, str],
        body: dict[str, Any],
        *,
        chat: bool,
    ) -> bytes:
        script = replace(self.script, **body.pop("standin", {}))
        self.seen.bodies.append(body)
        self.seen.headers.append(headers)
        await self._count(began=1)
        answer = asyncio.ensure_future(self._answer(writer, script, body, chat=chat))
        ahead = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answer, ahead), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await self._count(cancelled=1)
                raise Cut
            answer.result()
            await self._count(answered=1)
        finally:
            answer.cancel()
            ahead.cancel()
            await asyncio.wait((answer, ahead))
        return b"" if ahead.cancelled() else ahead.result()

    async def _answer(self, writer: asyncio.StreamWriter, script: Script, body: dict[str, Any], *, chat: bool) -> None:
        if script.hang:
            await asyncio.Event().wait()
        if script.refuse:
            _send(writer, script.refuse, _error("The prompt is too long.", "context_length_exceeded"))
            return
        if body.get("stream"):
            await self._stream(writer, script, body, chat=chat)
        else:
            await self._unary(writer, script, chat=chat)

    async def _unary(self, writer: asyncio.StreamWriter, script: Script, *, chat: bool) -> None:
        if script.gated:
            await self.gate.acquire()
        await asyncio.sleep(script.delay_ms * script.chunks / 1000)
        if script.die_after == 0:
            raise Cut
        text = script.chunk_text * script.chunks
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        answer = {
            "id": "standin",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1,
            "model": self.name,
            "choices": [{"index": 0, "finish_reason": "stop", **choice}],
            "usage": _usage(script.chunks),
        }
        cut = script.die_after is not None
        _send(writer, 200, answer, cut=cut)
        await writer.drain()
        if cut:
            raise Cut

    async def _stream(self, writer: asyncio.StreamWriter, script: Script, body: dict[str, Any], *, chat: bool) -> None:
        for index in range(script.chunks):
            if script.gated:
                await self.gate.acquire()
            if script.delay_ms:
                await asyncio.sleep(script.delay_ms / 1000)
            if script.die_after == index:
                raise Cut
            if script.fail_after == index > 0:
                break
            if index == 0:
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                    b"transfer-encoding: chunked\r\n\r\n"
                )
            _send_event(writer, self._chunk(script, index, chat=chat))
            await writer.drain()
            await self._count(chunks_sent=1)
        else:
            self._close_stream(writer, script, body, chat=chat)
            await writer.drain()
            return
        if script.fail_type:
            _send_event(writer, _error("The worker died.", "ENGINE_DIED", script.fail_type))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _close_stream(self, writer: asyncio.StreamWriter, script: Script, body: dict[str, Any], *, chat: bool) -> None:
        if (body.get("stream_options") or {}).get("include_usage"):
            _send_event(writer, self._chunk(script, -1, chat=chat) | {"choices": [], "usage": _usage(script.chunks)})
        _send_event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")

    def _chunk(self, script: Script, index: int, *, chat: bool) -> dict[str, Any]:
        piece = {"delta": {"content": script.chunk_text}} if chat else {"text": script.chunk_text}
        finish = "stop" if index == script.chunks - 1 else None
        return {
            "id": "standin",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": 1,
            "model": self.name,
            "choices": [{"index": 0, "finish_reason": finish, **piece}],
        }


def _usage(chunks: int) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": chunks, "total_tokens": 7 + chunks}


def _error(message: str, code: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _send(writer: asyncio.StreamWriter, status: int, value: Any, *, cut: bool = False) -> None:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + (body[: len(body) // 2] if cut else body))


def _send_event(writer: asyncio.StreamWriter, value: Any) -> None:
    event = b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"
    writer.write(b"%x\r\n%s\r\n" % (len(event), event))


async def _run(arguments: argparse.Namespace) -> None:
    token = os.environ.get("HEADRACE_ENGINE_TOKEN", "")
    names = {item.name for item in fields(Script)}
    async with StandIn(arguments.uds, port=arguments.port, token=token, name=arguments.name) as engine:
        engine.script = Script(**{key: value for key, value in vars(arguments).items() if key in names})
        print(engine.address, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uds", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="served", help="the model name it answers to")
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--chunk-text", default="tok ")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--refuse", type=int, default=0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
