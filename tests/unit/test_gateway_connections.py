"""How many connections a gateway holds: the limit comes from that of open files, and one too many is told so."""

from __future__ import annotations

import asyncio
import errno
import gc
import resource
import socket
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from event_loops import Loop, on_both_loops, run
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_http import GET, Application, error_of, exchanged
from tls_certificates import authority_in

from headrace.gateway.http1 import HttpServer, Patience, tls_listener
from headrace.gateway.http1.server import TURNED_AWAY_AT_ONCE
from headrace.server import open_files

CLOSE = b"connection: close\r\n\r\n"


@asynccontextmanager
async def limited(
    limit: int | None, tls: ssl.SSLContext | None = None, *, patience: Patience | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    """A server that holds so many connections; yields it with its port."""
    server = HttpServer(Application(), patience or Patience(linger_s=0.05), max_connections=limit)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        await server.start(listener, tls)
        try:
            yield server, listener.getsockname()[1]
        finally:
            await server.close(0)


async def until_held(server: HttpServer, number: int) -> None:
    """Wait until the server has seen that it holds so many."""
    async with asyncio.timeout(20):
        while len(server.connections) != number:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.001)


@on_both_loops
def test_one_too_many_is_told_so_at_once(loop: Loop) -> None:
    """It gets a whole answer before it has asked for anything; those that are held go on, and a place is given anew."""

    async def main() -> None:
        async with limited(2) as (server, port):
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            await until_held(server, 2)
            answer = await exchanged(port)
            assert error_of(answer) == (503, "TOO_MANY_CONNECTIONS")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert error_of(await exchanged(port, GET + b"\r\n", then_eof=True)) == (503, "TOO_MANY_CONNECTIONS")
            for reader, writer in held:
                writer.write(GET + b"\r\n")
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            held[0][1].close()
            await until_held(server, 1)
            assert (await exchanged(port, GET + CLOSE)).startswith(b"HTTP/1.1 200 OK")
            held[1][1].close()

    run(main(), loop)


@on_both_loops
def test_a_connection_that_ended_is_nobodys_garbage(loop: Loop) -> None:
    """Nothing of it is left to be searched for, while which every stream would wait: it goes with its last holder."""

    async def main() -> None:
        async with limited(None) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET + b"\r\n")
            await reader.readline()
            held = [weakref.ref(connection) for connection in server.connections]
            assert len(held) == 1
            writer.close()
            await until_held(server, 0)
            await asyncio.sleep(0)  # the loop lets go of it, too
            assert held[0]() is None

    gc.disable()
    try:
        run(main(), loop)
    finally:
        gc.enable()


@on_both_loops
def test_a_crowd_that_is_turned_away(loop: Loop) -> None:
    """However many come, each is told and let go, in good time and without a place for them."""

    async def main() -> None:
        async with limited(1) as (server, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await until_held(server, 1)
            answers = await asyncio.gather(*(exchanged(port) for _ in range(2 * TURNED_AWAY_AT_ONCE)))
            assert {error_of(answer) for answer in answers} == {(503, "TOO_MANY_CONNECTIONS")}
            await until_held(server, 1)
            writer.close()
            await until_held(server, 0)
            assert (await exchanged(port, GET + CLOSE)).startswith(b"HTTP/1.1 200 OK")

    run(main(), loop)


@on_both_loops
def test_one_too_many_with_tls(tmp_path: Path, loop: Loop) -> None:
    """It is told inside its encrypted connection."""

    async def main() -> None:
        authority, context = authority_in(tmp_path)
        trusting = ssl.create_default_context(cafile=authority)
        async with limited(1, context) as (server, port):
            _, held = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            await until_held(server, 1)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            assert error_of(await reader.read()) == (503, "TOO_MANY_CONNECTIONS")
            writer.close()
            held.close()

    run(main(), loop)


async def until_shaking(server: HttpServer, number: int) -> None:
    """Wait until so many TLS handshakes are under way."""
    async with asyncio.timeout(20):
        while len(server.shaking_hands) != number:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.001)


@on_both_loops
def test_a_handshake_takes_a_place(tmp_path: Path, loop: Loop) -> None:
    """A connection counts before its handshake is over; one that fails in it, or leaves, gives its place back."""

    async def main() -> None:
        authority, context = authority_in(tmp_path)
        trusting = ssl.create_default_context(cafile=authority)
        async with limited(1, context) as (server, port):
            for last_words in (b"", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"):
                _, silent = await asyncio.open_connection("127.0.0.1", port)
                await until_shaking(server, 1)
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
                assert error_of(await reader.read()) == (503, "TOO_MANY_CONNECTIONS")
                writer.close()
                silent.write(last_words)
                silent.close()
                await until_shaking(server, 0)
                await until_held(server, 0)
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
                writer.write(GET + CLOSE)
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
                writer.close()
                await until_held(server, 0)

    run(main(), loop)


@on_both_loops
def test_a_crowd_that_never_shakes_hands(tmp_path: Path, loop: Loop) -> None:
    """So many more than there may be are waited for, and the others are closed at once."""

    async def main() -> None:
        _, context = authority_in(tmp_path)
        async with limited(1, context) as (server, port):
            crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1 + TURNED_AWAY_AT_ONCE)]
            await until_shaking(server, 1 + TURNED_AWAY_AT_ONCE)
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await reader.read() == b""
                writer.close()
            for _, writer in crowd:
                writer.close()
            await until_shaking(server, 0)
            await server.emptied()

    run(main(), loop)


@on_both_loops
def test_a_handshake_that_has_begun_is_a_promise(tmp_path: Path, loop: Loop) -> None:
    """A server that retires ends the handshake with a client that has connected, and answers its one request."""

    async def main() -> None:
        authority, context = authority_in(tmp_path)
        async with limited(9, context, patience=Patience(last_call_s=60.0)) as (server, port):
            with socket.create_connection(("127.0.0.1", port)) as pipe:
                await until_shaking(server, 1)
                server.retire()
                emptied = asyncio.create_task(server.emptied())
                trusting = ssl.create_default_context(cafile=authority)
                reader, writer = await asyncio.open_connection(sock=pipe, ssl=trusting, server_hostname="127.0.0.1")
                assert not emptied.done()
                writer.write(GET + b"\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"connection: close\r\n" in head
                writer.close()
                await emptied

    run(main(), loop)


@on_both_loops
def test_a_handshake_has_its_time(tmp_path: Path, loop: Loop) -> None:
    """A client that says nothing is let go of when the time of a head is over."""

    async def main() -> None:
        _, context = authority_in(tmp_path)
        async with limited(None, context, patience=Patience(head_s=0.05)) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            await server.emptied()

    run(main(), loop)


@on_both_loops
def test_a_handshake_that_never_began(tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends between a connection and its handshake closes it, whoever else may still hold the socket."""
    accept, taken = socket.socket.accept, []

    def kept(listener: socket.socket) -> tuple[socket.socket, object]:
        accepted, address = accept(listener)
        taken.append(accepted)
        return accepted, address

    monkeypatch.setattr(socket.socket, "accept", kept)

    async def main() -> None:
        _, context = authority_in(tmp_path)
        async with limited(None, context) as (server, port):
            with socket.create_connection(("127.0.0.1", port)):
                while not server.shaking_hands:  # noqa: ASYNC110 - ends in the very turn in which it is taken
                    await asyncio.sleep(0)
                await server.close(0)
                assert [accepted.fileno() for accepted in taken] == [-1]

    run(main(), loop)


@on_both_loops
def test_descriptors_that_come_back(tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is left for a connection, it waits a moment in the kernel, and is taken then."""
    accept, refusals = socket.socket.accept, [errno.EMFILE, errno.ENFILE]

    def scarce(listener: socket.socket) -> tuple[socket.socket, object]:
        if refusals:
            raise OSError(refusals.pop(), "none left")
        return accept(listener)

    monkeypatch.setattr(tls_listener, "_PAUSE_S", 0.01)
    monkeypatch.setattr(socket.socket, "accept", scarce)

    async def main() -> None:
        authority, context = authority_in(tmp_path)
        trusting = ssl.create_default_context(cafile=authority)
        async with limited(None, context) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            assert not refusals
            writer.write(GET + CLOSE)
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            writer.close()

    run(main(), loop)


@given(st.integers(min_value=3, max_value=2**30))
def test_the_limit_leaves_room(files: int) -> None:
    """Every connection has its two descriptors, and some are left for the process, unless there are hardly any."""
    allowed = open_files.connections(files)
    assert allowed >= 1
    if files >= open_files.KEPT_FREE + open_files.PER_CONNECTION:
        assert allowed * open_files.PER_CONNECTION + open_files.KEPT_FREE <= files
        assert (allowed + 1) * open_files.PER_CONNECTION + open_files.KEPT_FREE > files


def test_it_is_said_what_the_limit_allows() -> None:
    """With both numbers: what is held, of all gateways together, and what that comes from."""
    assert open_files.sentence(20_000).startswith("Up to 9,936 connections at once: 20,000 files may be open (")
    of_two = open_files.sentence(20_000, 2)
    assert of_two.startswith("Up to 19,872 connections at once: 20,000 files may be open in each of 2 gateways (")


@pytest.mark.parametrize("allowed", [True, False])
def test_a_gateway_takes_all_that_it_may_have(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """The soft limit is raised to the hard one; where the kernel refuses, it counts as it is."""
    asked: list[tuple[int, int]] = []

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        if not allowed:
            raise ValueError("not allowed to raise maximum limit")
        asked.append(limits)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert open_files.raise_limit() == (4096 if allowed else 1024)
    assert asked == [(4096, 4096)] * allowed
