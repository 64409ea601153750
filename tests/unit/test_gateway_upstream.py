"""The gateway's HTTP client: kept connections, bodies that stream, cancellation, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from test_gateway_upstream_answers import LENGTH

from headrace.gateway.upstream import (
    BrokeOff,
    NoAnswer,
    TimedOut,
    Unreachable,
    Upstream,
    UpstreamRequest,
    read_address,
)

GET = UpstreamRequest(method="GET", target=b"/", headers=[])
POST = UpstreamRequest(method="POST", target=b"/", headers=[], body=b"{}")

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
