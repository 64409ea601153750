"""Deadlines of answers: one timer serves wait after wait, and each is held to its own time. The clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from headrace.gateway.upstream import Stalled, TimedOut
from headrace.gateway.upstream.connection import Connection

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE, END = b"1\r\nx\r\n", b"0\r\n\r\n"
LONG_S, SHORT_S = 600.0, 120.0


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time can be moved on."""

    ahead_s = 0.0

    def time(self) -> float:
        """The real time and what it was moved on by."""
        return super().time() + self.ahead_s


class Nowhere(asyncio.Transport):
    """A transport that takes everything."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As a transport has it."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on a clock."""
    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(main)


async def pass_s(seconds: float) -> None:
    """Let what was begun begin, move the time on, and let everything happen that this makes due."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clock)
    await asyncio.sleep(0)
    loop.ahead_s += seconds
    for _ in range(5):
        await asyncio.sleep(0)


async def asked() -> Connection:
    """A connection that waits for its answer."""
    connection = Connection(lambda _: None)
    connection.connection_made(Nowhere())
    connection.start(b"", head_only=False)
    return connection


async def answered(connection: Connection) -> None:
    """An answer with one piece, read to its end with a long deadline before it and a short one within."""
    begun = asyncio.create_task(connection.begun(LONG_S))
    await pass_s(LONG_S / 2)
    connection.data_received(HEAD + PIECE)
    await begun
    assert await connection.read(SHORT_S) == b"x"
    last = asyncio.create_task(connection.read(SHORT_S))
    await pass_s(SHORT_S / 2)
    connection.data_received(END)
    assert await last == b""


def test_waits_add_up_without_harm() -> None:
    """An answer that goes on for far longer than it may pause is read whole, and the pause that is too long ends it."""

    async def main() -> None:
        connection = await asked()
        connection.data_received(HEAD + PIECE)
        await connection.begun(LONG_S)
        assert await connection.read(SHORT_S) == b"x"
        for _ in range(20):
            piece = asyncio.create_task(connection.read(SHORT_S))
            await pass_s(SHORT_S * 0.75)
            assert not piece.done()
            connection.data_received(PIECE)
            assert await piece == b"x"
        piece = asyncio.create_task(connection.read(SHORT_S))
        await pass_s(SHORT_S * 1.25)
        with pytest.raises(Stalled, match="120 s"):
            await piece

    run(main())


def test_a_short_deadline_after_a_long_one() -> None:
    """On a connection that is kept, a deadline holds whatever was waited for before, and after any time of rest."""

    async def main() -> None:
        connection = await asked()
        for rest_s in (0.0, 1.0, LONG_S * 3):
            await answered(connection)
            await pass_s(rest_s)
            connection.start(b"", head_only=False)
        waiting = asyncio.create_task(connection.begun(1.0))
        await pass_s(0.5)
        assert not waiting.done()
        await pass_s(1.0)
        with pytest.raises(TimedOut, match="1 s"):
            await waiting

    run(main())
