"""The HTTP server under the gateway: what a client may send before anybody knows who it is."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headrace.gateway.asgi import Receive, Scope, Send
from headrace.server.asgi import server
from headrace.server.http import MAX_HEAD_BYTES, BoundedHttp

GET = b"GET /x HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


class Application:
    """Answers with the size of the body and of the headers; to ``/wait`` only when it may, to ``/deaf`` unread."""

    def __init__(self) -> None:
        self.served = 0
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        size, more = 0, scope["path"] != "/deaf"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.served += 1
        self.began.set()
        if scope["path"] == "/wait":
            await self.may_end.wait()
        body = b"%d %d" % (size, sum(len(name) + len(value) for name, value in scope["headers"]))
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % len(body))],
            }
        )
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: Application, protocol: type[BoundedHttp] = BoundedHttp) -> AsyncIterator[int]:
    """Our server with the application behind it; yields its port."""
    serves = server(app)
    serves.config.http = protocol
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.setblocking(False)
        task = asyncio.create_task(serves.serve(sockets=[listener]))
        await serves.accepting.wait()
        try:
            yield listener.getsockname()[1]
        finally:
            serves.should_exit = serves.force_exit = True
            await task


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


def test_what_is_not_an_answer_is_not_sent() -> None:
    """While an answer is due, bytes behind its request that cannot be read close the connection without a word."""

    async def main() -> None:
        app = Application()
        async with serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/x", b"/wait") + b"\r\n")
            await app.began.wait()
            writer.write(b"hello\r\n\r\n")
            assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


class Hasty(BoundedHttp):
    """A server with little patience."""

    head_timeout_s = 0.02


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"])
@pytest.mark.parametrize("begin", [GET, b"G", b"\r\n"])
def test_head_has_its_time(before: bytes, begin: bytes) -> None:
    """A head that does not come to its end closes its connection, the first one and a later one."""

    async def main() -> None:
        async with serving(Application(), Hasty) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if before:
                writer.write(before)
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(3) == b"0 5"
            writer.write(begin)
            assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_answers_have_theirs() -> None:
    """Neither a long answer nor stray bytes behind its request run into a head's deadline."""

    async def main() -> None:
        app = Application()
        async with serving(app, Hasty) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/x", b"/wait") + b"\r\n")
            await app.began.wait()
            writer.write(b"\r\n")
            await asyncio.sleep(5 * Hasty.head_timeout_s)  # nothing is to happen in this time
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
