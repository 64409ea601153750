"""A server that retires: whoever was told that a connection is kept loses no request by it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from test_gateway_http import GET, Application

from headrace.gateway.exchange import Exchange, Handler
from headrace.gateway.http1 import HttpServer, Patience

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LONG = Patience(last_call_s=60.0)
"""Nobody is timed out while a test looks."""


@asynccontextmanager
async def serving(app: Handler, patience: Patience) -> AsyncIterator[tuple[HttpServer, Pipe]]:
    """A server and a connection that it has taken."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HttpServer(app, patience)
        await server.start(listener)
        pipe = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
        while not server.connections:  # noqa: ASYNC110 - nobody tells of the moment
            await asyncio.sleep(0)
        try:
            yield server, pipe
        finally:
            pipe[1].close()
            await server.close(0)


async def asked(pipe: Pipe, request: bytes = GET + b"\r\n") -> bytes:
    """The head of the answer, whose body of three bytes is read, too."""
    reader, writer = pipe
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(3)
    return head


def test_a_connection_that_was_just_taken_is_answered() -> None:
    """Its first request may be under way already: it is answered, and told that the connection closes."""

    async def main() -> None:
        async with serving(Application(), LONG) as (server, pipe):
            server.retire()
            assert b"connection: close\r\n" in await asked(pipe)
            assert await pipe[0].read() == b""
            await server.emptied()

    asyncio.run(main())


def test_a_kept_connection_brings_one_more() -> None:
    """Between two requests, too: the next one is the last."""

    async def main() -> None:
        async with serving(Application(), LONG) as (server, pipe):
            assert b"connection: close\r\n" not in await asked(pipe)
            server.retire()
            assert b"connection: close\r\n" in await asked(pipe)
            assert await pipe[0].read() == b""

    asyncio.run(main())


def test_a_request_that_came_in_time_is_answered_however_late_it_is_read() -> None:
    """Where the last call is over before a busy process has read what came, that is answered first."""

    async def main() -> None:
        async with serving(Application(), LONG) as (server, pipe):
            await asked(pipe)
            server.retire()
            pipe[1].write(GET + b"\r\n")  # the kernel has it at once, and nobody has read it
            (connection,) = server.connections
            connection.expire()
            assert b"connection: close\r\n" in await pipe[0].readuntil(b"\r\n\r\n")

    asyncio.run(main())


def test_an_answer_that_begins_later_says_so() -> None:
    """A request that came before: its answer closes the connection where that can still be said."""

    async def main() -> None:
        app = Application()
        async with serving(app, LONG) as (server, pipe):
            pipe[1].write(GET.replace(b"/x", b"/wait") + b"\r\n")
            await app.began.wait()
            server.retire()
            app.may_end.set()
            assert b"connection: close\r\n" in await pipe[0].readuntil(b"\r\n\r\n")
            assert await pipe[0].read() == b"0 5"

    asyncio.run(main())


def test_an_answer_that_had_begun_keeps_its_word() -> None:
    """Its head promised to keep the connection: a request that follows at once is answered."""

    async def main() -> None:
        may_end = asyncio.Event()

        async def streams(exchange: Exchange) -> None:
            await exchange.start(200, [])
            await exchange.write(b"0 5")
            await may_end.wait()
            await exchange.end(b"!")

        async with serving(streams, LONG) as (server, (reader, writer)):
            writer.write(GET + b"\r\n")
            assert b"connection: close\r\n" not in await reader.readuntil(b"\r\n\r\n")
            server.retire()
            may_end.set()
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(GET + b"\r\n")
            assert b"connection: close\r\n" in await reader.readuntil(b"\r\n\r\n")
            assert (await reader.read()).endswith(b"0\r\n\r\n")

    asyncio.run(main())


def test_who_asks_nothing_is_left() -> None:
    """A connection that brings nothing in the time that it is given is closed, and then the server is empty."""

    async def main() -> None:
        async with serving(Application(), Patience(last_call_s=0.02)) as (server, pipe):
            await asked(pipe)
            server.retire()
            assert await pipe[0].read() == b""
            await server.emptied()

    asyncio.run(main())


def test_closing_waits_for_nobody_who_asks_nothing() -> None:
    """To close is more than to retire: a connection without a request ends at once."""

    async def main() -> None:
        async with serving(Application(), LONG) as (server, pipe):
            await asked(pipe)
            await server.close()
            assert await pipe[0].read() == b""

    asyncio.run(main())
