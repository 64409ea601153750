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


async def stream(target: Target, *, chunks: int) -> Streamed:
    """One streamed request on a connection of its own, for so many tokens."""
    reader, writer = await target.connect()
    began = time.perf_counter()
    writer.write(target.request(stream=True, ignore_eos=True, max_tokens=chunks))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n", 1)[0], head
    first, seen = 0.0, 0
    while (line := await reader.readline()) and line != b"data: [DONE]\n":
        if line.startswith(b"data: "):
            first = first or time.perf_counter() - began
            seen += 1
    writer.close()
    return Streamed(first, seen)
