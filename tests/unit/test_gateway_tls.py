"""The gateway's TLS port: the same promises as on the plain one, to clients that trust the private authority."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from event_loops import Loop, on_both_loops, run
from gateway_serving import BASE, CHAT, KEY, deployed, gateway_before, serving
from test_gateway_control import Control
from tls_certificates import authority_in

from headrace.gateway.exchange import Exchange
from headrace.gateway.http1 import HttpServer, Patience
from standin import Script, StandIn

URL = f"{BASE}/chat/completions"
STREAM = CHAT | {"stream": True}


def client_of(url: str, authority: Path) -> httpx.AsyncClient:
    """A client that shows a key and trusts the private authority alone."""
    context = ssl.create_default_context(cafile=authority)
    bearer = {"authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(base_url=url, headers=bearer, verify=context, timeout=20, trust_env=False)


@asynccontextmanager
async def secure(folder: Path, *models: Any, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that serves TLS, before these deployed models."""
    authority, context = authority_in(folder / "data")
    async with (
        gateway_before(folder, *models, **more) as served,
        serving(served.gateway.handle, tls=context) as url,
        client_of(url, authority) as client,
    ):
        yield client


@on_both_loops
def test_hang_up_reaches_the_engine(tmp_path: Path, loop: Loop) -> None:
    """A client that leaves in the middle of an encrypted stream stops the engine's work."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, secure(tmp_path, deployed(engine.address)) as client:
            engine.script = Script(chunks=4, gated=True)
            engine.gate.release()
            async with client.stream("POST", URL, json=STREAM) as answer:
                await anext(answer.aiter_raw())
            await engine.until(cancelled=1)

    run(main(), loop)


@on_both_loops
def test_slow_reader_gets_backpressure(tmp_path: Path, loop: Loop) -> None:
    """While a client does not read, the engine is stopped after a bounded amount."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, secure(tmp_path, deployed(engine.address)) as client:
            chunk_bytes = 64 * 1024
            engine.script = Script(chunks=2000, chunk_text="x" * chunk_bytes)
            async with client.stream("POST", URL, json=STREAM) as answer:
                before = -1
                while engine.seen.chunks_sent != before:  # until nothing moves any more
                    before = engine.seen.chunks_sent
                    for _ in range(2000):
                        await asyncio.sleep(0)
                    await asyncio.sleep(0.05)
                assert 0 < engine.seen.chunks_sent * chunk_bytes < 32 * 1024 * 1024
                await anext(answer.aiter_raw())

    run(main(), loop)


@on_both_loops
def test_control_is_told_how_the_client_came(tmp_path: Path, loop: Loop) -> None:
    """What is passed on says ``https``, as it was."""

    async def main() -> None:
        control = Control()
        async with (
            serving(control, uds=tmp_path / "c"),
            secure(tmp_path, control=f"unix:{tmp_path / 'c'}") as client,
        ):
            assert (await client.get("/headrace/v1/status")).status_code == 207
            assert control.header(b"x-forwarded-proto") == b"https"

    run(main(), loop)


@on_both_loops
def test_only_who_trusts_the_authority_connects(tmp_path: Path, loop: Loop) -> None:
    """A client with the system's authorities alone refuses, and so does one that calls another name."""

    async def main() -> None:
        async with secure(tmp_path) as client:
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get(f"https://localhost:{client.base_url.port}/healthz")).status_code == 200
            async with httpx.AsyncClient(base_url=client.base_url, trust_env=False) as stranger:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await stranger.get("/healthz")
            async with client_of(str(client.base_url), tmp_path / "data" / "tls" / "ca.pem") as mistaken:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await mistaken.get("/healthz", extensions={"sni_hostname": "example.org"})

    run(main(), loop)


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None), ([], None)]
)
@on_both_loops
def test_http_1_1_is_agreed_on(tmp_path: Path, offered: list[str], chosen: str | None, loop: Loop) -> None:
    """Of what a client offers HTTP/1.1 is taken, and one that offers nothing of it, or nothing, is served as well."""

    async def main() -> None:
        async with secure(tmp_path) as client:
            context = ssl.create_default_context(cafile=tmp_path / "data" / "tls" / "ca.pem")
            if offered:
                context.set_alpn_protocols(offered)
            reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port, ssl=context)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()

    run(main(), loop)


@on_both_loops
def test_old_versions_of_tls_are_refused(tmp_path: Path, loop: Loop) -> None:
    """TLS 1.2 is served, and TLS 1.1 is not."""

    async def main() -> None:
        async with secure(tmp_path) as client:
            for version, served in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
                context = ssl.create_default_context(cafile=tmp_path / "data" / "tls" / "ca.pem")
                context.set_ciphers("ALL:@SECLEVEL=0")  # else the client itself refuses the old one
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    context.minimum_version = context.maximum_version = version
                with contextlib.nullcontext() if served else pytest.raises((ssl.SSLError, ConnectionError)):
                    _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port, ssl=context)
                    writer.close()

    run(main(), loop)


@on_both_loops
def test_a_gateway_is_replaced_on_both_ports(tmp_path: Path, loop: Loop) -> None:
    """Its stream goes on, and whoever connects before the next one listens is served by that: nobody is refused."""

    async def main() -> None:
        authority, context = authority_in(tmp_path / "data")
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(chunks=2, gated=True)
            async with (
                gateway_before(tmp_path / "old", deployed(engine.address)) as old,
                gateway_before(tmp_path / "new", deployed(engine.address)) as new,
            ):
                with socket.create_server(("127.0.0.1", 0)) as plain, socket.create_server(("127.0.0.1", 0)) as tls:
                    first = await _serves(old.gateway.handle, plain, tls, context)
                    ports = [each.getsockname()[1] for each in (plain, tls)]
                    async with (
                        client_of(f"https://127.0.0.1:{ports[1]}", authority) as client,
                        client_of(f"https://127.0.0.1:{ports[1]}", authority) as late,
                        client_of(f"http://127.0.0.1:{ports[0]}", authority) as late_plain,
                    ):
                        engine.gate.release()
                        async with client.stream("POST", URL, json=STREAM) as answer:
                            pieces = answer.aiter_raw()
                            assert b"tok" in await anext(pieces)
                            first.retire()
                            asking = [asyncio.create_task(each.get("/v1/models")) for each in (late, late_plain)]
                            second = await _serves(new.gateway.handle, plain, tls, context)
                            assert [one.status_code for one in await asyncio.gather(*asking)] == [200, 200]
                            engine.gate.release()
                            assert b"".join([piece async for piece in pieces]).endswith(b"data: [DONE]\n\n")
                    await first.close(5)
                    await second.close(5)

    run(main(), loop)


async def _serves(handler: Any, plain: socket.socket, tls: socket.socket, context: ssl.SSLContext) -> HttpServer:
    """A server on copies of both sockets, as a process has that inherited them."""
    server = HttpServer(handler)
    await server.start(plain.dup())
    await server.start(tls.dup(), context)
    return server


@on_both_loops
@pytest.mark.parametrize("body_bytes", [0, 2**20])
def test_a_client_that_forgot_tls_is_told_so(tmp_path: Path, body_bytes: int, loop: Loop) -> None:
    """It reads why its request was refused, whatever it still sends, and nobody is asked anything."""

    async def main() -> None:
        async with _silent(tmp_path) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % body_bytes + bytes(body_bytes))
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert json.loads(body)["error"]["details"][0]["reason"] == "TLS_EXPECTED"

    run(main(), loop)


@on_both_loops
def test_who_was_told_so_is_not_waited_for(tmp_path: Path, loop: Loop) -> None:
    """A client that forgot TLS, read why and keeps its end open holds no place for long, and no server's end up."""

    async def main() -> None:
        _, context = authority_in(tmp_path / "data")
        listener = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(_nobody, Patience(head_s=3600, linger_s=0.05))
        await server.start(listener.dup(), context)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        async with asyncio.timeout(60):
            server.retire()
            await server.emptied()
        assert not server.shaking_hands
        await server.close(0)
        writer.close()
        listener.close()

    run(main(), loop)


@on_both_loops
@pytest.mark.parametrize("said", [b"\0" * 300, b"\x16\x03\x01\x00\x05hello", b""])
def test_a_client_that_speaks_no_tls_is_let_go(tmp_path: Path, said: bytes, loop: Loop) -> None:
    """Its connection ends without an answer in HTTP, and nobody is asked anything."""

    async def main() -> None:
        async with _silent(tmp_path) as (reader, writer):
            writer.write(said)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                assert not (await reader.read()).startswith(b"HTTP")

    run(main(), loop)


@asynccontextmanager
async def _silent(folder: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to a TLS port whose handler must not be reached."""
    _, context = authority_in(folder / "data")
    async with serving(_nobody, tls=context) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        yield reader, writer
        writer.close()


async def _nobody(_: Exchange) -> None:
    raise AssertionError
