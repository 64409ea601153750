"""The HTTP server under the gateway: what a client may send before anybody knows who it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gateway_serving import serving as serving_at
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.exchange import ClientGone, Exchange
from headrace.gateway.http1 import MAX_HEAD_BYTES, HttpServer, Patience

GET = b"GET /x HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


class Application:
    """Answers with the size of the body and of the headers.

    To ``/wait`` only when it may, to ``/deaf`` unread, to ``/stream`` in pieces, to ``/cut`` without an end; to
    ``/long`` with much, and to ``/endless`` for ever.
    """

    def __init__(self) -> None:
        self.served = 0
        self.asked, self.began, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.leaves = asyncio.Semaphore(0)

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        self.asked.set()
        try:
            await self._answer(exchange)
        except (asyncio.CancelledError, ClientGone):
            self.leaves.release()
            raise

    async def _answer(self, exchange: Exchange) -> None:
        path = exchange.head.target
        size = 0 if path == b"/deaf" else len(await exchange.read_all(2**30))
        self.served += 1
        self.began.set()
        if path == b"/wait":
            await self.may_end.wait()
        body = b"%d %d" % (size, sum(len(name) + len(value) for name, value in exchange.head.headers))
        if path == b"/long":
            body *= 20_000
        if path not in (b"/stream", b"/cut", b"/endless"):
            await exchange.answer(200, [], body)
            return
        await exchange.start(200, [])
        await exchange.write(body)
        while path == b"/endless":
            await exchange.write(body * 1000)
        if path == b"/stream":
            await exchange.end(b"!")


@asynccontextmanager
async def serving(app: Application, patience: Patience | None = None) -> AsyncIterator[int]:
    """Our server with the application behind it; yields its port."""
    async with serving_at(app, patience=patience) as url:
        yield int(url.rpartition(":")[2])


async def exchanged(port: int, *pieces: bytes, then_eof: bool = False) -> bytes:
    """Everything that comes back for these bytes until the server closes the connection.

    Args:
        port: The server's.
        pieces: What is sent, each in a packet of its own.
        then_eof: Whether to say at the end that there will be no more; a refusal does not linger then.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    if then_eof:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def error_of(answer: bytes) -> tuple[int, str]:
    """Status and stable code of one answer in Google's shape, whose framing is right."""
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"connection"] == b"close"
    assert int(headers[b"content-length"]) == len(body)
    error: dict[str, Any] = json.loads(body)["error"]
    assert int(head.split(b" ")[1]) == error["code"]
    return error["code"], error["details"][0]["reason"]


ENDLESS = {
    "one header": (GET + b"x: ", b"y" * 16384),
    "many headers": (GET, b"x: y\r\n" * 1000),
    "one line": (b"GET /", b"y" * 16384),
    "empty lines": (b"\r\n", b"\r\n" * 8192),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_head(kind: str) -> None:
    """A head without an end is refused at the limit with the reason, however it grows, and reaches nobody."""

    async def main() -> None:
        app = Application()
        begin, more = ENDLESS[kind]
        async with serving(app) as port:
            answer = await exchanged(port, begin, *[more] * 16, then_eof=True)
            assert error_of(answer) == (431, "HEADERS_TOO_LARGE")
        assert app.served == 0

    asyncio.run(main())


def test_limit_is_exact_and_of_each_head() -> None:
    """A head of just the limit is served, one byte more is not; bodies and earlier requests do not count."""

    async def main() -> None:
        app = Application()
        end = b"\r\ncontent-length: 1000000\r\n\r\n"
        head = GET + b"x: "
        head += b"y" * (MAX_HEAD_BYTES - len(head) - len(end)) + end
        async with serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):
                writer.write(head + b"b" * 1_000_000)
                assert b" 200 " in await reader.readline()
                await reader.readuntil(b"\r\n\r\n")
                assert (await reader.readexactly(13)).startswith(b"1000000 ")
            writer.close()
            answer = await exchanged(port, head.replace(b"x: ", b"x: y"))
            assert error_of(answer) == (431, "HEADERS_TOO_LARGE")
        assert app.served == 3

    asyncio.run(main())


@pytest.mark.parametrize("path", [b"/x", b"/deaf"])
def test_endless_trailers(path: bytes) -> None:
    """Trailers have the same limit; to a request that was answered already nothing is said twice."""

    async def main() -> None:
        app = Application()
        async with serving(app) as port:
            begin = POST.replace(b"/x", path) + b"1\r\nb\r\n0\r\nx: "
            answer = await exchanged(port, begin, *[b"y" * 16384] * 16, then_eof=True)
            if path == b"/x":
                assert error_of(answer) == (431, "HEADERS_TOO_LARGE")
            else:
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert answer.count(b"HTTP/1.1") == 1
        assert app.served == (path == b"/deaf")

    asyncio.run(main())


def test_trailers_are_no_headers() -> None:
    """What comes behind the body is not taken for a header of the request."""

    async def main() -> None:
        async with serving(Application()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(POST + b"1\r\nb\r\n0\r\nauthorization: Bearer x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(4) == b"1 29"  # host: x, transfer-encoding: chunked
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        GET + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
        GET + b"content-length: 4\r\ncontent-length: 5\r\n\r\n",
        GET + b"content-length: +4\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /x HTTP/1.1\r\n\r\n",
        GET + b"host: y\r\n\r\n",
        b"GET /x HTTP/2.0\r\nhost: x\r\n\r\n",
        b"DESCRIBE /x RTSP/1.0\r\nhost: x\r\n\r\n",
        b"PROPFIND /x HTTP/1.1\r\nhost: x\r\n\r\n",
        GET + b"transfer-encoding: gzip, chunked\r\n\r\n",
        POST + b"zz\r\n",
    ],
)
def test_what_is_no_request(request_: bytes) -> None:
    """What cannot be read is answered in the shape of every other error, with a stable code."""

    async def main() -> None:
        app = Application()
        async with serving(app) as port:
            assert error_of(await exchanged(port, request_, then_eof=True)) == (400, "MALFORMED_REQUEST")
        assert app.served == 0

    asyncio.run(main())


def test_what_comes_behind_a_request_waits() -> None:
    """Bytes that cannot be read are refused in their turn: the answer before them comes whole."""

    async def main() -> None:
        app = Application()
        async with serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/x", b"/wait") + b"\r\n")
            await app.began.wait()
            writer.write(b"hello\r\n\r\n")
            await writer.drain()
            app.may_end.set()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert error_of(answer[answer.index(b"HTTP/1.1 400") :]) == (400, "MALFORMED_REQUEST")
            writer.close()

    asyncio.run(main())


HASTY = Patience(head_s=0.02, body_s=0.02)
"""A server with little patience."""


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"])
@pytest.mark.parametrize("begin", [GET, b"G", b"\r\n"])
def test_head_has_its_time(before: bytes, begin: bytes) -> None:
    """A head that does not come to its end closes its connection, the first one and a later one.

    Who has asked for something is told why; nobody takes that for the answer to a request that is yet to be sent.
    """

    async def main() -> None:
        async with serving(Application(), HASTY) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if before:
                writer.write(before)
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(3) == b"0 5"
            writer.write(begin)
            answer = await reader.read()
            assert answer == b"" if begin != GET else error_of(answer) == (408, "REQUEST_TOO_SLOW")
            writer.close()

    asyncio.run(main())


def test_body_has_its_time() -> None:
    """A body that stops in its middle is told so, and reaches nobody."""

    async def main() -> None:
        app = Application()
        async with serving(app, HASTY) as port:
            answer = await exchanged(port, GET + b"content-length: 9\r\n\r\nsome")
            assert error_of(answer) == (408, "REQUEST_TOO_SLOW")
        assert app.served == 0
        await app.leaves.acquire()

    asyncio.run(main())


def test_silence_has_its_time() -> None:
    """A connection on which nothing is asked is closed, a new one and one that was used."""

    async def main() -> None:
        async with serving(Application(), Patience(keep_alive_s=0.02)) as port:
            assert await exchanged(port) == b""
            assert (await exchanged(port, GET + b"\r\n")).endswith(b"0 5")

    asyncio.run(main())


def test_answers_have_theirs() -> None:
    """Neither a long answer nor stray bytes behind its request run into a head's deadline."""

    async def main() -> None:
        app = Application()
        async with serving(app, HASTY) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/x", b"/wait") + b"\r\n")
            await app.began.wait()
            writer.write(b"\r\n")
            await asyncio.sleep(5 * HASTY.head_s)  # nothing is to happen in this time
            app.may_end.set()
            assert b" 200 " in await reader.readline()
            writer.close()

    asyncio.run(main())


def test_every_boundary() -> None:
    """Wherever the bytes of pipelined requests are cut, each gets its answer, in order."""

    async def main() -> None:
        wire = POST + b"3\r\nabc\r\n0\r\n\r\n" + GET + b"connection: close\r\n\r\n"
        async with serving(Application()) as port:
            for cut in range(1, len(wire)):
                answer = await exchanged(port, wire[:cut], wire[cut:])
                bodies = [line for line in answer.split(b"\r\n") if line[:1].isdigit()]
                assert bodies == [b"3 29HTTP/1.1 200 OK", b"0 20"], cut

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "keeps", "framing"),
    [
        (GET + b"\r\n", True, b"content-length: 3"),
        (GET + b"connection: close\r\n\r\n", False, b"connection: close"),
        (b"GET /x HTTP/1.0\r\n\r\n", False, b"connection: close"),
        (b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", True, b"connection: keep-alive"),
        (b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n", True, b"transfer-encoding: chunked"),
        (b"GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", False, b"connection: close"),
        (b"GET http://x/x?y HTTP/1.1\r\nhost: x\r\n\r\n", True, b"content-length: 3"),
        (b"HEAD /x HTTP/1.1\r\nhost: x\r\n\r\n", True, b"content-length: 3"),
        (GET + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n", True, b"content-length: 4"),
        (GET.replace(b"GET", b"POST") + b"expect: 100-continue\r\ncontent-length: 0\r\n\r\n", True, b"content-length"),
    ],
)
def test_which_connections_are_kept(request_: bytes, keeps: bool, framing: bytes) -> None:
    """A connection is kept where client and framing allow it, and the answer says which of the two it is."""

    async def main() -> None:
        async with serving(Application()) as port:
            answer = await exchanged(port, request_ + GET + b"connection: close\r\n\r\n")
            assert answer.count(b"HTTP/1.1 200 OK\r\ndate: ") == 1 + keeps, answer
            assert framing in answer.partition(b"\r\n\r\n")[0]

    asyncio.run(main())


def test_streams_and_cuts() -> None:
    """A stream is chunked with a last chunk; one that breaks off has none, and its connection ends."""

    async def main() -> None:
        async with serving(Application()) as port:
            for path, end in ((b"/stream", b"\r\n1\r\n!\r\n0\r\n\r\n"), (b"/cut", b"\r\n\r\n3\r\n0 5\r\n")):
                more = b"" if path == b"/cut" else b"connection: close\r\n"
                answer = await exchanged(port, GET.replace(b"/x", path) + more + b"\r\n")
                assert answer.endswith(end), answer

    asyncio.run(main())


def test_body_is_asked_for() -> None:
    """Who waits for ``100 Continue`` gets it once somebody reads, and not where the answer is there before."""

    async def main() -> None:
        async with serving(Application()) as port:
            for path, first in ((b"/x", b"HTTP/1.1 100 Continue\r\n"), (b"/deaf", b"HTTP/1.1 200 OK\r\n")):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(GET.replace(b"/x", path) + b"expect: 100-continue\r\ncontent-length: 4\r\n\r\n")
                assert await reader.readline() == first
                if path == b"/x":
                    writer.write(b"body")
                else:
                    assert b"connection: close\r\n" in await reader.readuntil(b"\r\n\r\n")
                writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(("size", "kept"), [(4, True), (60_000, True), (70_000, False), (10_000_000, False)])
def test_body_that_nobody_reads(size: int, kept: bool) -> None:
    """A short body that its answer did not wait for is read away; for a long one the connection is not kept."""

    async def main() -> None:
        async with serving(Application()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/x", b"/deaf") + b"content-length: %d\r\n\r\n" % size)
            head = await reader.readuntil(b"\r\n\r\n")
            assert (b"connection: close" in head) != kept
            with contextlib.suppress(ConnectionError):
                writer.write(b"b" * size + GET + b"\r\n")
                rest = await reader.read(4096)
                assert (b" 200 OK" in rest + await reader.read(4096 if kept else -1)) == kept
            writer.close()

    asyncio.run(main())


def test_clients_that_leave() -> None:
    """Whoever hangs up, while a body is awaited or while the answer is, cancels the work; nothing is left."""

    async def main() -> None:
        app = Application()
        async with serving(app) as port:
            for path, body in ((b"/x", b"content-length: 4\r\n\r\nb"), (b"/wait", b"\r\n")):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(GET.replace(b"/x", path) + body)
                await app.asked.wait()
                if path == b"/wait":
                    await app.began.wait()
                writer.transport.abort()
                await app.leaves.acquire()
                app.asked.clear()
            assert app.served == 1

    asyncio.run(main())


def test_pipelined_requests_wait_unread() -> None:
    """Of a thousand requests sent at once each is answered in its turn, and no more than one at a time."""

    async def main() -> None:
        app = Application()
        async with serving(app) as port:
            requests = GET + b"\r\n"
            answer = await exchanged(port, *[requests * 100] * 10, GET + b"connection: close\r\n\r\n")
            assert answer.count(b"0 5") == 1000
            assert app.served == 1001

    asyncio.run(main())


@given(st.lists(st.binary(max_size=200) | st.sampled_from([GET, POST, b"\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n"])))
@settings(max_examples=150, deadline=None)
def test_any_bytes(pieces: list[bytes]) -> None:
    """Whatever is sent, every answer is one of ours, and the connection ends with its client."""

    async def main() -> None:
        async with serving(Application()) as port:
            answer = await exchanged(port, *[piece for piece in pieces if piece], then_eof=True)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")

    asyncio.run(main())


UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
"""What Java's client sends with every first request."""


@pytest.mark.parametrize(
    "body", [b"content-length: 4\r\n\r\nbody", b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
)
def test_offers_of_other_protocols_are_ignored(body: bytes) -> None:
    """A request that offers HTTP/2 keeps its body and its connection, wherever its bytes are cut."""

    async def main() -> None:
        wire = GET.replace(b"GET", b"POST") + UPGRADE + body
        last = GET + b"connection: close\r\n\r\n"
        async with serving(Application()) as port:
            for cut in range(1, len(wire)):
                answer = await exchanged(port, wire[:cut], wire[cut:] + last)
                assert answer.count(b"HTTP/1.1 200 OK") == 2, (cut, answer)
                assert b"\r\n\r\n4 " in answer, (cut, answer)

    asyncio.run(main())


def test_a_client_that_leaves_behind_others_of_its_requests() -> None:
    """It is noticed at once although requests of its wait unread behind the one that is answered."""

    async def main() -> None:
        app = Application()
        async with serving(app) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write((GET.replace(b"/x", b"/wait") + b"\r\n") * 2)
            await app.began.wait()
            writer.close()
            await app.leaves.acquire()
        assert app.served == 1

    asyncio.run(main())


def small_window(port: int) -> socket.socket:
    """A connection whose client takes in very little unread."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


def test_who_does_not_read_is_not_answered_further() -> None:
    """Requests without an end whose answers nobody reads stop being taken; the client is cut off in time."""

    async def main() -> None:
        app = Application()
        loop = asyncio.get_running_loop()
        async with serving(app, Patience(read_s=0.2)) as port:
            with small_window(port) as client:
                request = GET.replace(b"/x", b"/long") + b"\r\n"
                with contextlib.suppress(ConnectionError):
                    for _ in range(100_000):
                        await loop.sock_sendall(client, request * 100)
            assert 0 < app.served < 1000

    asyncio.run(main())


def test_a_stream_that_nobody_reads_ends() -> None:
    """Its work is cancelled, as if its client had left: places are not to be held by who takes nothing."""

    async def main() -> None:
        app = Application()
        loop = asyncio.get_running_loop()
        async with serving(app, Patience(read_s=0.2)) as port:
            with small_window(port) as client:
                await loop.sock_sendall(client, GET.replace(b"/x", b"/endless") + b"\r\n")
                await app.leaves.acquire()

    asyncio.run(main())


def test_what_comes_stays_in_its_order() -> None:
    """Bytes that arrive between an answer's end and the reading of what was put aside come behind that."""

    async def main() -> None:
        paths: list[bytes] = []

        async def handler(exchange: Exchange) -> None:
            paths.append(exchange.head.target)
            [connection] = server.connections
            if exchange.head.target == b"/first":
                connection.data_received(b"GET /seco")
            await exchange.answer(200, [], b"")
            if exchange.head.target == b"/first":
                connection.data_received(b"nd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

        server = HttpServer(handler)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.start(listener)
            answer = await exchanged(listener.getsockname()[1], GET.replace(b"/x", b"/first") + b"\r\n")
            await server.close(0)
        assert (answer.count(b" 200 OK"), paths) == (2, [b"/first", b"/second"])

    asyncio.run(main())
