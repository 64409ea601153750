"""The gateway's HTTP client: framing at every boundary, kept connections, cancellation, deadlines."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.upstream import (
    BrokeOff,
    NoAnswer,
    TimedOut,
    Unreachable,
    Upstream,
    UpstreamRequest,
    read_address,
)
from headrace.gateway.upstream.connection import ANSWER_HEAD_BYTES, READ_AHEAD_BYTES, Connection

GET = UpstreamRequest(method="GET", target=b"/", headers=[])
POST = UpstreamRequest(method="POST", target=b"/", headers=[], body=b"{}")

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


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


@asynccontextmanager
async def upstream_of(folder: Path, script: Script) -> AsyncIterator[Upstream]:
    """A client of a server that treats its n-th connection as the script says."""
    count = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await script(reader, writer, count)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, str(folder / "u"))
    upstream = Upstream(read_address(f"unix:{folder / 'u'}"), connect_timeout_s=5)
    try:
        yield upstream
    finally:
        upstream.close()
        server.close()


async def whole(upstream: Upstream, request: UpstreamRequest, timeout_s: float = 10) -> bytes:
    """The body of the answer to a request."""
    async with await upstream.send(request, timeout_s=timeout_s) as answer:
        return b"".join([piece async for piece in iter_answer(answer.read)])


async def iter_answer(read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    """The pieces of an answer."""
    while piece := await read():
        yield piece


def test_connections_are_kept(tmp_path: Path) -> None:
    """One request after the other goes over one connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        assert n == 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(LENGTH)

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream:
            for _ in range(3):
                assert await whole(upstream, GET) == b"hello world"

    asyncio.run(main())


def test_stale_connection_is_retried_once(tmp_path: Path) -> None:
    """A kept connection that the server closes when the next request comes is replaced, unseen by the caller."""
    heads: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.readuntil(b"{}")
        heads.append(n)
        writer.write(LENGTH)
        await reader.readuntil(b"{}")  # takes the next request and closes without a byte
        heads.append(n)

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream:
            assert await whole(upstream, POST) == b"hello world"
            assert await whole(upstream, POST) == b"hello world"
            assert heads == [1, 1, 2]

    asyncio.run(main())


def test_what_may_not_be_repeated_is_sent_once(tmp_path: Path) -> None:
    """A request that is not repeatable never risks a kept connection."""
    used: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        while True:
            await reader.readuntil(b"{}")
            used.append(n)
            writer.write(LENGTH)

    async def main() -> None:
        once = UpstreamRequest(method="POST", target=b"/", headers=[], body=b"{}", repeatable=False)
        async with upstream_of(tmp_path, script) as upstream:
            await whole(upstream, POST)
            await whole(upstream, once)
            assert used == [1, 2]

    asyncio.run(main())


def test_fresh_connection_is_not_retried(tmp_path: Path) -> None:
    """A server that takes a request on a fresh connection and closes has not answered."""
    seen: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        seen.append(n)

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream:
            with pytest.raises(NoAnswer):
                await whole(upstream, GET)
            assert seen == [1]

    asyncio.run(main())


def test_cut_answers_break_off(tmp_path: Path) -> None:
    """An answer that ends before its length is told apart from a whole one, after all that came of it."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(LENGTH[:-4])

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream, await upstream.send(GET, timeout_s=10) as answer:
            got = b""
            with pytest.raises(BrokeOff):  # noqa: PT012 - the loop raises
                async for piece in iter_answer(answer.read):
                    got += piece
            assert got == b"hello w"

    asyncio.run(main())


def test_deadline_and_unreachable(tmp_path: Path) -> None:
    """A server that says nothing is given up, and one that is not there is told apart."""
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.read()
        closed.set()

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream:
            with pytest.raises(TimedOut):
                await whole(upstream, GET, timeout_s=0.01)
            await asyncio.wait_for(closed.wait(), 10)
        nowhere = Upstream(read_address(f"unix:{tmp_path / 'nowhere'}"), connect_timeout_s=5)
        with pytest.raises(Unreachable):
            await whole(nowhere, GET)

    asyncio.run(main())


def test_one_that_had_more_time_and_ends_gave_no_answer(tmp_path: Path) -> None:
    """A kept connection that breaks after the first deadline is told as broken, so that another server may be asked."""
    asked = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")
        await asked.wait()
        writer.close()

    def more_s() -> float:
        asked.set()
        return 20.0

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream:
            assert await whole(upstream, GET) == b"ok"
            with pytest.raises(NoAnswer):
                await upstream.send(GET, timeout_s=0.01, more_s=more_s)

    asyncio.run(main())


def test_a_server_that_ends_at_a_request_had_it(tmp_path: Path) -> None:
    """A kept connection that breaks and cannot be replaced is no answer: what was sent may be what ended the server."""
    socket = tmp_path / "u"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(LENGTH)
        await reader.readuntil(b"\r\n\r\n")
        server.close()
        socket.unlink()
        writer.transport.abort()

    async def main() -> None:
        nonlocal server
        server = await asyncio.start_unix_server(script, str(socket))
        upstream = Upstream(read_address(f"unix:{socket}"), connect_timeout_s=5)
        assert await whole(upstream, GET) == b"hello world"
        with pytest.raises(NoAnswer):
            await whole(upstream, GET)
        with pytest.raises(Unreachable):
            await whole(upstream, GET)

    server: asyncio.Server
    asyncio.run(main())


def test_bodies_stream(tmp_path: Path) -> None:
    """A body goes out piece by piece, before its end is known, and in order."""
    got: list[bytes] = []
    first = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        got.append(await reader.readexactly(len(b"3\r\none\r\n")))
        first.set()
        got.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(LENGTH)

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await first.wait()
        yield b"two!"

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream:
            request = UpstreamRequest(method="POST", target=b"/", headers=[], body=body())
            assert await whole(upstream, request) == b"hello world"
            assert got == [b"3\r\none\r\n", b"4\r\ntwo!\r\n0\r\n\r\n"]

    asyncio.run(main())


def test_body_that_cannot_be_read_is_the_reason(tmp_path: Path) -> None:
    """If the body's source fails, that is what the caller hears, and the server sees the connection close."""
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.read()
        closed.set()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise LookupError

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream:
            with pytest.raises(LookupError):
                await whole(upstream, UpstreamRequest(method="POST", target=b"/", headers=[], body=body()))
            await asyncio.wait_for(closed.wait(), 10)

    asyncio.run(main())


def test_head_answers_have_no_body(tmp_path: Path) -> None:
    """The answer to HEAD ends with its head, whatever length it announces."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(LENGTH.removesuffix(b"hello world"))
        await reader.read()

    async def main() -> None:
        async with upstream_of(tmp_path, script) as upstream:
            assert await whole(upstream, UpstreamRequest(method="HEAD", target=b"/", headers=[])) == b""

    asyncio.run(main())


@pytest.mark.parametrize("text", ["", "unix:", "unix:relative", "/path", "https://", "http://", "ftp://h"])
def test_addresses_that_are_none(text: str) -> None:
    """Only unix:/path, http://host:port and https://host:port are addresses."""
    with pytest.raises(ValueError, match="neither"):
        read_address(text)


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\0"])
@pytest.mark.parametrize("where", ["target", "host", "name", "value"])
@pytest.mark.parametrize("body", [b"", b"x\r\n\r\nGET / HTTP/1.1\r\n"])
def test_a_head_is_one_head(end: bytes, where: str, body: bytes) -> None:
    """A request with a line's end in its head is its maker's fault, and nothing is sent; a body may have any."""

    def request(put: bytes) -> UpstreamRequest:
        told = {part: part.encode() + (put if part == where else b"") for part in ("target", "host", "name", "value")}
        headers = [(told["name"], told["value"])]
        return UpstreamRequest(method="POST", target=told["target"], host=told["host"], headers=headers, body=body)

    address = read_address("http://127.0.0.1:1")
    assert request(b"").encode(address).endswith(b"\r\n\r\n" + body)
    with pytest.raises(ValueError, match="ends a line"):
        request(end).encode(address)
