"""Signs of life for a stream that stands in line or whose engine has not begun: comments of SSE, which clients skip."""

from __future__ import annotations

import asyncio

from headrace.gateway.call import Call
from headrace.gateway.exchange import ClientGone, Exchange
from headrace.gateway.relay import EVENT_STREAM, begin_stream

COMMENT = b": waiting\n\n"
"""A line that begins with a colon is a comment (HTML, 9.2.6). The empty line behind it ends no event: there is none."""


class Heartbeats:
    """While the block runs, begin the answer after `Limits.heartbeat_s` and send a comment then and each time again.

    From the first one on the answer has its status: an error that comes later is the stream's last event.

    Args:
        exchange: Whose client waits.
        call: What it waits for.
    """

    __slots__ = ("_beat", "_call", "_exchange", "_timer")

    def __init__(self, exchange: Exchange, call: Call) -> None:
        self._exchange = exchange
        self._call = call
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._call.limits.heartbeat_s, self._begin)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nothing of it is written any more: it awaits only once a comment is with the client."""
        assert self._timer is not None
        self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()

    def _begin(self) -> None:
        self._beat = asyncio.create_task(_beat(self._exchange, self._call))


async def _beat(exchange: Exchange, call: Call) -> None:
    try:
        if not exchange.started:
            await begin_stream(exchange, call, EVENT_STREAM)
        while True:
            call.record.bytes_sent += len(COMMENT)
            await exchange.write(COMMENT)
            await asyncio.sleep(call.limits.heartbeat_s)
    except ClientGone:
        return  # whoever waits for the answer hears of it too
