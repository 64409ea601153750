"""How the gateway's HTTP client reads an answer: framing at every boundary, noise, bounds, and who pauses whom."""

from __future__ import annotations

import asyncio
import gc
import weakref
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.upstream import BrokeOff, NoAnswer
from headrace.gateway.upstream.connection import ANSWER_HEAD_BYTES, READ_AHEAD_BYTES, Connection

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
    b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nhello world"


class Wire:
    """A transport that a `Connection` writes to, and the bytes that it wrote."""

    def __init__(self) -> None:
        self.connection = Connection(lambda _: None)
        self.written = b""
        self.paused = self.aborted = False
        self.connection.connection_made(self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        """As a transport has it."""
        self.written += data

    def pause_reading(self) -> None:
        """As a transport has it."""
        self.paused = True

    def resume_reading(self) -> None:
        """As a transport has it."""
        self.paused = False

    def abort(self) -> None:
        """As a transport has it."""
        if not self.aborted:
            self.aborted = True
            self.connection.connection_lost(None)


def test_an_ended_connection_is_nobodys_garbage() -> None:
    """It goes with its last holder, and nothing of it is left to be searched for, while which every stream waits."""

    async def main() -> None:
        wire = Wire()
        held = weakref.ref(wire.connection)
        wire.connection.start(b"", head_only=False)
        wire.connection.data_received(LENGTH)
        assert await begun_and_read(wire.connection) == b"hello world"
        wire.abort()
        del wire.connection
        assert held() is None

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


async def read_all(connection: Connection) -> bytes:
    """The answer's whole body."""
    pieces = []
    while piece := await connection.read():
        pieces.append(piece)
    return b"".join(pieces)


async def begun_and_read(connection: Connection) -> bytes:
    """The answer's whole body, once it has begun."""
    await connection.begun(1)
    return await read_all(connection)


def fed(pieces: list[bytes], *, then_lost: bool = False) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
    """Status, headers, body and reusability of an answer that comes in these pieces."""

    async def main() -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
        wire = Wire()
        connection = wire.connection
        connection.start(b"", head_only=False)
        for piece in pieces:
            connection.data_received(piece)
        if then_lost and not wire.aborted:
            connection.connection_lost(None)
        await connection.begun(1)
        headers = [header for header in connection.headers if header[0] == b"x-a"]
        return connection.status, headers, await read_all(connection), connection.reusable

    return asyncio.run(main())


@pytest.mark.parametrize("wire_bytes", [LENGTH, CHUNKED, INTERIM])
def test_every_boundary(wire_bytes: bytes) -> None:
    """An answer means the same wherever the network cuts it in two, and byte by byte."""
    expected = (200, [(b"x-a", b"b")], b"hello world", True)
    for cut in range(1, len(wire_bytes)):
        assert fed([wire_bytes[:cut], wire_bytes[cut:]]) == expected, cut
    assert fed([bytes([byte]) for byte in wire_bytes]) == expected


def test_answer_until_close() -> None:
    """Without framing the end of the connection is the end of the answer, and it is not kept."""
    for cut in range(1, len(UNTIL_CLOSE)):
        got = fed([UNTIL_CLOSE[:cut], UNTIL_CLOSE[cut:]], then_lost=True)
        assert got == (200, [(b"x-a", b"b")], b"hello world", False)


@settings(deadline=None, max_examples=60)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    cuts=st.sets(st.integers(0, 3000), max_size=12),
    chunked=st.booleans(),
)
def test_what_h11_sends_is_understood(chunks: list[bytes], cuts: set[int], chunked: bool) -> None:
    """Whatever an independent implementation (h11) sends arrives the same, cut anywhere."""
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while peer.next_event() is not h11.PAUSED and peer.their_state is not h11.DONE:
        pass
    body = b"".join(chunks)
    framing = (b"Transfer-Encoding", b"chunked") if chunked else (b"Content-Length", b"%d" % len(body))
    sent = peer.send(h11.Response(status_code=200, headers=[framing, (b"X-A", b"b")])) or b""
    for chunk in chunks:
        sent += peer.send(h11.Data(data=chunk)) or b""
    sent += peer.send(h11.EndOfMessage()) or b""
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(sent)), len(sent)]
    pieces = [sent[a:b] for a, b in pairwise(edges) if a < b]
    assert fed(pieces) == (200, [(b"x-a", b"b")], body, True)


@settings(deadline=None, max_examples=150)
@given(noise=st.binary(max_size=200), good=st.sampled_from([b"", LENGTH[:20], LENGTH[:50], CHUNKED[:70]]))
def test_noise_is_an_error_and_nothing_worse(noise: bytes, good: bytes) -> None:
    """Bytes that are no HTTP end in one of our errors, or in an answer; never in another exception or in a hang."""

    async def main() -> None:
        wire = Wire()
        wire.connection.start(b"", head_only=False)
        wire.connection.data_received(good + noise)
        if not wire.aborted:
            wire.connection.connection_lost(None)
        try:
            await wire.connection.begun(1)
            await read_all(wire.connection)
        except (NoAnswer, BrokeOff):
            pass

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
def test_ambiguous_answers_are_refused(answer: bytes) -> None:
    """Answers whose framing two readers could take differently are no answers."""
    with pytest.raises(NoAnswer):
        fed([answer], then_lost=True)


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nx-a: ", b"a"),
        (b"HTTP/1.1 200 OK\r\n", b"a"),
        (b"HTTP/1.1 200 ", b"a"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=", b"a"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nz\r\n0\r\nx: ", b"a"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
)
def test_what_never_ends_is_not_read_for_ever(begun: bytes, more: bytes) -> None:
    """A header, a chunk's extension, a trailer or heads without end: hung up after a bounded number of bytes."""

    async def main() -> None:
        wire = Wire()
        wire.connection.start(b"", head_only=False)
        wire.connection.data_received(begun)
        for _ in range(ANSWER_HEAD_BYTES // 4096 + 2):
            if not wire.aborted:
                wire.connection.data_received(more * (4096 // len(more) + 1))
        assert wire.aborted
        with pytest.raises((NoAnswer, BrokeOff), match="no head that ends"):
            await begun_and_read(wire.connection)

    asyncio.run(main())


def test_a_long_stream_of_small_chunks_is_whole() -> None:
    """What frames a body may add up to anything, as long as there is a body in it."""
    chunks = [b"1\r\nx\r\n"] * (2 * ANSWER_HEAD_BYTES // 6)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
    assert fed([head, *chunks, b"0\r\n\r\n"])[2] == b"x" * len(chunks)


def test_bytes_after_the_answer_taint_the_connection() -> None:
    """A connection that brings more than its answer carries no other one."""
    assert not fed([LENGTH + LENGTH])[3]


def test_reading_pauses_while_nobody_reads() -> None:
    """What waits to be read is bounded, and reading goes on afterwards."""

    async def main() -> None:
        wire = Wire()
        wire.connection.start(b"", head_only=False)
        wire.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not wire.paused:
            wire.connection.data_received(b"x" * 1000)
            assert wire.connection._waiting_bytes <= READ_AHEAD_BYTES + 1000
        assert await wire.connection.read()
        assert not wire.paused

    asyncio.run(main())
