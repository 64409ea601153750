"""A load generator over raw asyncio streams: light enough that two cores hold it beside what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Target:
    """An OpenAI-compatible server: on a unix socket or on a loopback port."""

    model: str
    key: str
    uds: str = ""
    port: int | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        if self.uds:
            return await asyncio.open_unix_connection(self.uds)
        return await asyncio.open_connection("127.0.0.1", self.port)

    def request(self, **fields: Any) -> bytes:
        """A whole chat request, head and body."""
        messages = [{"role": "user", "content": "Why does a river bend?"}]
        body = json.dumps({"model": self.model, "messages": messages, **fields}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Streamed(NamedTuple):
    """One streamed answer: seconds to its first chunk, and how many chunks came."""

    first_chunk_s: float
    chunks: int


async def unary(target: Target, *, requests: int, connections: int) -> list[float]:
    """Latencies in seconds of unary requests, spread over kept-alive connections."""
    request = target.request(max_tokens=3)

    async def one_connection() -> list[float]:
        reader, writer = await target.connect()
        latencies = []
        for _ in range(requests // connections):
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await _body(head, reader)
            latencies.append(time.perf_counter() - began)
        writer.close()
        return latencies

    return [
        latency for part in await asyncio.gather(*(one_connection() for _ in range(connections))) for latency in part
    ]


async def stream(target: Target, *, chunks: int, delay_ms: float = 0) -> Streamed:
    """One streamed request on a connection of its own.

    Args:
        target: Who is asked.
        chunks: Tokens asked for.
        delay_ms: What a stand-in engine waits before each chunk; a real engine is not told.
    """
    script = (
        {"standin": {"chunks": chunks, "delay_ms": delay_ms}}
        if delay_ms
        else {"ignore_eos": True, "max_tokens": chunks}
    )
    reader, writer = await target.connect()
    began = time.perf_counter()
    writer.write(target.request(stream=True, **script))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n", 1)[0], head
    first, seen = 0.0, 0
    while (line := await reader.readline()) and line != b"data: [DONE]\n":
        if line.startswith(b"data: "):
            first = first or time.perf_counter() - began
            seen += 1
    writer.close()
    return Streamed(first, seen)


async def _body(head: bytes, reader: asyncio.StreamReader) -> None:
    status, _, fields = head.partition(b"\r\n")
    assert b" 200 " in status, head
    for line in fields.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))
            return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()
