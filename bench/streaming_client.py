"""The client of ``bench/streaming.py``, in a process of its own: when each token came, beside when it was made.

    python streaming_client.py --port P --key K --streams N --chunks C --delay-ms D [--authority FILE] [--seconds S]

Streams begin spread over the length of one, and each is followed by the next on its connection. Once all have begun
and the first of them are over, it prints a line and begins to count: for the time that it is given, or until its
standard input closes. Its last line is what it saw, as JSON. ``--authority`` makes the connections TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import ssl
import sys
import time
from collections.abc import Sequence
from typing import cast

import uvloop

from gateway_nginx import PATH
from gateway_streams import chat_body
from report import quantile

HOST = "127.0.0.1"
_MOMENT = re.compile(rb'"content": ?"(\d+)"')
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Seen:
    """What came. Times in nanoseconds.

    Attributes:
        delays: From a token's being written by the engine to its being read here.
        gaps: Between two tokens of a stream, as they were read.
        changes: By how much such a gap is another than between the same two when they were written.
        together: Tokens that were read in one piece with the one before.
        failed: Streams that did not come to their end, or came compressed.
        counting: Whether it is noted at all.
    """

    def __init__(self) -> None:
        self.delays: list[int] = []
        self.gaps: list[int] = []
        self.changes: list[int] = []
        self.together = self.failed = 0
        self.counting = False
        self.over = False

    def told(self) -> dict[str, object]:
        """The same in numbers; milliseconds."""
        return {
            "tokens": len(self.delays),
            "together": self.together,
            "failed": self.failed,
            "delay_ms": _p50_p99(self.delays),
            "gap_ms": _p50_p99(self.gaps),
            "change_ms": _p50_p99(self.changes),
        }


def _p50_p99(values: Sequence[int]) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    return quantile(values, 0.5) / 1e6, quantile(values, 0.99) / 1e6


class Stream(asyncio.Protocol):
    """A connection that carries one stream after another."""

    def __init__(self, request: bytes, seen: Seen) -> None:
        self._request, self._seen = request, seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def close(self) -> None:
        """Leave."""
        self._transport.abort()

    def _next(self) -> None:
        self._unread = b""
        self._begun = False
        self._made = self._came = 0
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        now = time.monotonic_ns()
        if not self._begun:
            head = data.partition(b"\r\n\r\n")[0].lower()
            if not head.startswith(b"http/1.1 200") or b"content-encoding" in head:
                self.close()
                return
            self._begun = True
        whole, _, self._unread = (self._unread + data).rpartition(b"\n\n")
        if moments := [int(moment) for moment in _MOMENT.findall(whole)]:
            if self._seen.counting:
                self._note(moments, now)
            self._made, self._came = moments[-1], now
        if self._unread == _LAST_CHUNK:
            self._next()

    def _note(self, moments: Sequence[int], now: int) -> None:
        seen, made, came = self._seen, self._made, self._came
        for moment in moments:
            seen.delays.append(now - moment)
            if came:
                seen.gaps.append(now - came)
                seen.changes.append(abs((now - came) - (moment - made)))
            made, came = moment, now
        seen.together += len(moments) - 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Called by the event loop."""
        if not self._seen.over:
            self._seen.failed += 1


async def run(arguments: argparse.Namespace, request: bytes) -> Seen:
    """Streams on all connections until it is over."""
    tls = ssl.create_default_context(cafile=arguments.authority) if arguments.authority else None
    loop, seen = asyncio.get_running_loop(), Seen()
    lasts_s = arguments.chunks * arguments.delay_ms / 1000
    streams = []
    for _ in range(arguments.streams):
        streams.append((await loop.create_connection(lambda: Stream(request, seen), HOST, arguments.port, ssl=tls))[1])
        await asyncio.sleep(lasts_s / arguments.streams)
    gc.collect()
    gc.disable()  # its pauses would count as the gateway's
    await asyncio.sleep(lasts_s / 2)
    seen.counting = True
    print("counting", flush=True)
    await (asyncio.sleep(arguments.seconds) if arguments.seconds else asyncio.to_thread(sys.stdin.read))
    seen.counting, seen.over = False, True
    for stream in streams:
        stream.close()
    return seen


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--chunks", type=int, required=True)
    parser.add_argument("--delay-ms", type=int, required=True)
    parser.add_argument("--authority", default="")
    parser.add_argument("--seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    body = chat_body(stream=True, max_tokens=arguments.chunks, seed=arguments.delay_ms)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {arguments.key}\r\nOrigin: https://bench.example"
        f"\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    print(json.dumps(uvloop.run(run(arguments, head.encode() + body)).told()), flush=True)


if __name__ == "__main__":
    _main()
