"""The streaming client of ``bench/gateway.py``, in a process of its own: reads events and notes when they came.

    python gateway_streams.py --port P --key K --streams N --chunks C --delay-ms D --seconds S
    python gateway_streams.py --port P --key K --hold N

A raw protocol that looks for marks in the bytes, so that one core carries it beside the engine. Streams begin spread
over the length of one, and each is followed by the next on its connection until the time is over. With ``--hold``,
streams that stand still after their first chunk are opened and held until standard input closes. One line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import Sequence
from typing import cast

import uvloop

from gateway_nginx import MODEL, PATH

OPENING = 128
"""Streams that are opened at a time before they are held."""

HELD_DELAY_MS = 600_000
LATE_S = 30.0
"""For streams to come to their end when the time is over, and for one to open."""

_MESSAGES = [
    {"role": "system", "content": "You answer in one sentence."},
    {"role": "user", "content": "Why does a river bend?"},
]


def chat_body(**fields: object) -> bytes:
    """A small chat request."""
    return json.dumps({"model": MODEL, "messages": _MESSAGES, "temperature": 0.7, **fields}).encode()


class Tally:
    """What came. Times in seconds.

    Attributes:
        firsts: From a request to its first chunk; the first request of each connection is left out.
        gaps: Between two chunks of a stream; those that came at once have none between them.
        failed: Streams that did not come to their end.
    """

    def __init__(self) -> None:
        self.firsts: list[float] = []
        self.gaps: list[float] = []
        self.chunks = 0
        self.failed = 0
        self.over = False


class Stream(asyncio.Protocol):
    """A connection that carries one stream after another."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request, self._tally = request, tally
        self._warm = False
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def _next(self) -> None:
        self._last = 0.0
        self._tail = b""
        self._complete = False
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        now = time.perf_counter()
        if not self._tail and not data.startswith(b"HTTP/1.1 200"):
            self._transport.abort()
            return
        if events := data.count(b"data: {"):
            self._count(events, now)
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n":
            self._complete = self._warm = True
            if self._tally.over:
                self._transport.close()
            else:
                self._next()

    def _count(self, events: int, now: float) -> None:
        tally = self._tally
        tally.chunks += events
        if self._last:
            tally.gaps.append(now - self._last)
            tally.gaps += [0.0] * (events - 1)
        elif self._warm:
            tally.firsts.append(now - self._began)
        if not self.begun.done():
            self.begun.set_result(None)
        self._last = now

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Called by the event loop."""
        if not self._complete:
            self._tally.failed += 1
        for waited in (self.begun, self.done):
            if not waited.done():
                waited.set_result(None)


async def _open(port: int, request: bytes, tally: Tally) -> Stream:
    _, stream = await asyncio.get_running_loop().create_connection(lambda: Stream(request, tally), "127.0.0.1", port)
    return stream


async def run(arguments: argparse.Namespace, request: bytes) -> dict[str, object]:
    """Streams on all connections until the time is over."""
    gc.disable()  # its pauses would count as the proxy's
    tally = Tally()
    spread_s = arguments.chunks * arguments.delay_ms / 1000 / arguments.streams
    streams = []
    for _ in range(arguments.streams):
        streams.append(await _open(arguments.port, request, tally))
        await asyncio.sleep(spread_s)
    await asyncio.sleep(arguments.seconds)
    tally.over = True
    _, late = await asyncio.wait([stream.done for stream in streams], timeout=LATE_S)
    return {
        "firsts": _quantiles(tally.firsts),
        "gaps": _quantiles(tally.gaps),
        "streams": len(tally.firsts),
        "chunks": tally.chunks,
        "failed": tally.failed + len(late),
    }


async def hold(arguments: argparse.Namespace, request: bytes) -> dict[str, object]:
    """Open streams, a bounded number at a time, and wait for the first chunk of each."""
    tally, opening, streams = Tally(), asyncio.Semaphore(OPENING), []

    async def one() -> None:
        async with opening:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(LATE_S):
                    stream = await _open(arguments.port, request, tally)
                    await stream.begun
                    streams.append(stream)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(arguments.hold)))
    held = sum(not stream.done.done() for stream in streams)
    return {"held": held, "failed": arguments.hold - held, "took_s": time.perf_counter() - began}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    """In milliseconds; NaN without values."""
    ordered = sorted(values) or [float("nan")]
    return {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] * 1e3 for share in (50, 99)}


async def _main(arguments: argparse.Namespace) -> None:
    chunks, delay_ms = (2, HELD_DELAY_MS) if arguments.hold else (arguments.chunks, arguments.delay_ms)
    body = chat_body(stream=True, max_tokens=chunks, seed=delay_ms)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {arguments.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    work = hold if arguments.hold else run
    print(json.dumps(await work(arguments, head.encode() + body)), flush=True)
    if arguments.hold:
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--chunks", type=int, default=1)
    parser.add_argument("--delay-ms", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--hold", type=int, default=0)
    uvloop.run(_main(parser.parse_args()))
