"""`Upstream`'s bodies handed on as they come: all of it, in order, held while nobody wants it, and every end told."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_upstream_answers import CHUNKED, LENGTH, Wire

from headrace.gateway.exchange import ClientGone
from headrace.gateway.upstream import BrokeOff, Stalled
from headrace.gateway.upstream.connection import READ_AHEAD_BYTES, Connection

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """In HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def begun() -> Wire:
    """A connection whose request is sent."""
    wire = Wire()
    wire.connection.start(b"", head_only=False)
    return wire


class Taker:
    """Remembers what it is handed, and wants no more after each of some pieces."""

    def __init__(self, full_after: frozenset[int] = frozenset()) -> None:
        self.pieces: list[bytes] = []
        self.got_one = asyncio.Event()
        self._full_after = full_after

    def __call__(self, piece: bytes) -> bool:
        """As `UpstreamAnswer.pipe` calls it."""
        assert piece
        self.got_one.set()
        self.pieces.append(piece)
        return len(self.pieces) not in self._full_after


async def all_of(connection: Connection, take: Taker) -> int:
    """Pipe to the end; returns how often the taker was full."""
    await connection.begun(1)
    full = 0
    while not await connection.pipe(take):
        full += 1
    return full


@settings(deadline=None, max_examples=100)
@given(
    wire_bytes=st.sampled_from([LENGTH, CHUNKED]),
    cuts=st.sets(st.integers(1, 130), max_size=8),
    full_after=st.frozensets(st.integers(1, 5)),
    turns=st.booleans(),
)
def test_all_of_it_in_order(wire_bytes: bytes, cuts: set[int], full_after: frozenset[int], turns: bool) -> None:
    """Wherever the network cuts it, and however often its taker is full, all of a body is handed on once."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire_bytes)), len(wire_bytes)]

    async def main() -> None:
        wire, take = begun(), Taker(full_after)
        piping = asyncio.create_task(all_of(wire.connection, take))
        for begin, end in pairwise(edges):
            if turns:
                await asyncio.sleep(0)
            wire.connection.data_received(wire_bytes[begin:end])
        assert await asyncio.wait_for(piping, 10) == len([n for n in full_after if n <= len(take.pieces)])
        assert b"".join(take.pieces) == b"hello world"
        assert wire.connection.reusable

    asyncio.run(main())


def test_a_piece_is_there_when_its_bytes_are() -> None:
    """It is handed on before the call that brings its bytes returns, and what comes at once comes in one piece."""

    async def main() -> None:
        wire, take = begun(), Taker()
        piping = asyncio.create_task(all_of(wire.connection, take))
        wire.connection.data_received(HEAD + chunk(b"first"))
        await take.got_one.wait()
        wire.connection.data_received(chunk(b"a") + chunk(b"b"))
        assert take.pieces == [b"first", b"ab"]
        wire.connection.data_received(chunk(b"c") + LAST)
        assert take.pieces[-1] == b"c"
        await piping

    asyncio.run(main())


def test_while_the_taker_is_full_it_is_held_and_not_read() -> None:
    """A full taker gets nothing; what comes is held, up to a bound, and handed on with the next call."""

    async def main() -> None:
        wire, take = begun(), Taker(frozenset({1}))
        wire.connection.data_received(HEAD + chunk(b"x"))
        await wire.connection.begun(1)
        assert not await wire.connection.pipe(take)
        wire.connection.data_received(chunk(b"y" * (READ_AHEAD_BYTES + 1)))
        assert (len(take.pieces), wire.paused) == (1, True)
        wire.connection.data_received(LAST)
        assert await wire.connection.pipe(take)
        assert (len(take.pieces[1]), wire.paused) == (READ_AHEAD_BYTES + 1, False)

    asyncio.run(main())


@pytest.mark.parametrize("at_once", [True, False])
def test_what_the_taker_raises_arrives(at_once: bool) -> None:
    """The one who pipes gets it, whether the piece was there or came later; nothing more is handed on."""
    taken: list[bytes] = []

    def gone(piece: bytes) -> bool:
        taken.append(piece)
        if piece != b"fine":
            raise ClientGone
        return True

    async def main() -> None:
        wire = begun()
        wire.connection.data_received(HEAD + chunk(b"a" if at_once else b"fine"))
        await wire.connection.begun(1)
        piping = asyncio.create_task(wire.connection.pipe(gone))
        await asyncio.sleep(0)
        if not at_once:
            wire.connection.data_received(chunk(b"a"))
        wire.connection.data_received(chunk(b"b"))
        with pytest.raises(ClientGone):
            await piping
        assert taken in ([b"a"], [b"ab"], [b"fine", b"a"])

    asyncio.run(main())


@pytest.mark.parametrize("end", [lambda wire: wire.abort(), lambda wire: wire.connection.data_received(b"no size\r\n")])
def test_a_broken_end_is_told(end: object) -> None:
    """What came before is handed on, then it breaks off."""

    async def main() -> None:
        wire, take = begun(), Taker()
        piping = asyncio.create_task(all_of(wire.connection, take))
        wire.connection.data_received(HEAD + chunk(b"x"))
        await take.got_one.wait()
        end(wire)  # type: ignore[operator]
        with pytest.raises(BrokeOff):
            await piping
        assert take.pieces == [b"x"]

    asyncio.run(main())


def test_it_stalls_by_the_time_since_the_last_piece() -> None:
    """Each piece moves the deadline; after the last one it passes."""

    async def main() -> None:
        wire, take = begun(), Taker()
        connection = wire.connection
        wire.connection.data_received(HEAD + chunk(b"x"))
        await connection.begun(1)
        piping = asyncio.create_task(connection.pipe(take, 3600))
        await asyncio.sleep(0)
        first = connection._deadline
        await asyncio.sleep(0.002)
        connection.data_received(chunk(b"y"))
        assert first < connection._deadline < math.inf
        connection._deadline = 0.0
        connection._look()
        with pytest.raises(Stalled):
            await piping
        assert connection._deadline == math.inf

    asyncio.run(main())
