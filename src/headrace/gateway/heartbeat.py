"""Signs of life for a streaming request that stands in line: comments of SSE, which clients skip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.gateway.call import Call
from headrace.gateway.exchange import ClientGone, Exchange
from headrace.gateway.relay import EVENT_STREAM, begin_stream
from headrace.gateway.waiting_room import Meanwhile

COMMENT = b": waiting\n\n"
"""A line that begins with a colon is a comment (HTML, 9.2.6). The empty line behind it ends no event: there is none."""


def heartbeats(exchange: Exchange, call: Call) -> Meanwhile:
    """While the block runs, begin the answer after `Limits.heartbeat_s` and send a comment then and each time again.

    From the first one on the answer has its status: an error that comes later is the stream's last event.
    """

    @asynccontextmanager
    async def beating() -> AsyncIterator[None]:
        beat = asyncio.create_task(_beat(exchange, call))
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.wait((beat,))  # what it began to write is written: what follows comes behind it

    return beating


async def _beat(exchange: Exchange, call: Call) -> None:
    try:
        while True:
            await asyncio.sleep(call.limits.heartbeat_s)
            if not exchange.started:
                await begin_stream(exchange, call, EVENT_STREAM)
            call.record.bytes_sent += len(COMMENT)
            await exchange.write(COMMENT)
    except ClientGone:
        return  # whoever waits for the turn hears of it too
