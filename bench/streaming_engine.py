"""The engine of ``bench/streaming.py``: tokens at a steady pace, the text of each the moment at which it was written.

    python streaming_engine.py PORT

It computes nothing. A request says how it streams by fields that every OpenAI server knows, as with
``gateway_nginx.py``: ``max_tokens`` is the number of tokens, ``seed`` the milliseconds before each. The event loop is
the standard library's, which writes at once: uvloop collects what a turn of it writes, and the moment would be an
earlier one than that of the system call.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from typing import cast

from gateway_nginx import MODEL, PATH

PROMPT_TOKENS = 24
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

_ID = {"id": "chatcmpl-bench", "created": 1, "model": MODEL}
_USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 8, "total_tokens": PROMPT_TOKENS + 8}
_CHOICE = {"index": 0, "delta": {"content": "MOMENT"}, "finish_reason": None}
_MESSAGE = {"role": "assistant", "content": "It takes from one bank what it gives to the other."}

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


_TOKEN = _event(json.dumps({**_ID, "object": "chat.completion.chunk", "choices": [_CHOICE]}).encode())
_TOLD = _event(json.dumps({**_ID, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE}).encode())
_END = _chunk(_TOLD) + _chunk(_event(b"[DONE]")) + b"0\r\n\r\n"
_WHOLE = json.dumps(
    {
        **_ID,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
).encode()
_COUNTED = json.dumps({"count": PROMPT_TOKENS, "max_model_len": 4096, "tokens": []}).encode()


class Engine(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._head = b""
        self._left = 0
        self._delay_s = self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Called by the event loop: nobody waits for the rest."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._received += data
        head, border, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if border and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._answer(head.split(b" ", 2)[1].decode(), body)

    def _answer(self, path: str, body: bytes) -> None:
        if path == "/tokenize":
            self._send(_COUNTED)
        elif path != PATH:
            self._send(b"")  # of /metrics, too: there is nothing to tell
        elif (asked := json.loads(body)).get("stream"):
            self._head = _STREAM_HEAD
            self._left, self._delay_s = asked["max_tokens"], asked["seed"] / 1000
            self._wait(self._loop.time())
        else:
            self._send(_WHOLE)

    def _send(self, document: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(document)
        self._transport.write(head + document)

    def _wait(self, since: float) -> None:
        """Until the next token; one that is late does not make the one after it early."""
        self._due = max(since + self._delay_s, self._loop.time())
        self._timer = self._loop.call_at(self._due, self._emit)

    def _emit(self) -> None:
        self._transport.write(self._head + _chunk(_TOKEN.replace(b"MOMENT", b"%d" % time.monotonic_ns())))
        self._head = b""
        self._left -= 1
        if self._left:
            self._wait(self._due)
        else:
            self._transport.write(_END)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port, backlog=4096)
    gc.collect()
    gc.disable()  # its pauses would count as the gateway's
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
