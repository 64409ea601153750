"""Tunnels of the proxy for the names of Vertex AI: where they lead, and how they end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from event_loops import Loop, on_both_loops, run
from gateway_serving import BASE as ENDPOINT
from gateway_serving import CHAT, KEY, deployed, gateway_before
from tls_certificates import now

from headrace.gateway.upstream import read_address
from headrace.resources.layout import Layout
from headrace.server.tls.certify import certify
from headrace.server.tls.files import CertificateFiles, FollowedCertificate
from headrace.server.vertex_proxy.connect import CERTIFIED_NAMES
from headrace.server.vertex_proxy.tunnel import Tunnels, Ways
from standin import Script, StandIn

HOST = "us-central1-aiplatform.googleapis.com"
CONNECT = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()


class Proxy:
    """A proxy that runs.

    Attributes:
        url: Its address.
        authority: What clients are to trust.
    """

    def __init__(self, port: int, authority: Path, tunnels: Tunnels) -> None:
        self.port, self.url, self.authority, self.tunnels = port, f"http://127.0.0.1:{port}", authority, tunnels

    def client(self) -> httpx.AsyncClient:
        """A client that knows only Google's address, and this proxy."""
        return httpx.AsyncClient(
            base_url=f"https://{HOST}",
            proxy=self.url,
            verify=ssl.create_default_context(cafile=self.authority),
            headers={"authorization": f"Bearer {KEY}"},
            trust_env=False,
            timeout=20,
        )

    async def secure(self, protocols: list[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection through it, whose client offers these protocols."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(CONNECT)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        context = ssl.create_default_context(cafile=self.authority)
        context.set_alpn_protocols(protocols)
        await writer.start_tls(context, server_hostname=HOST)
        return reader, writer


@asynccontextmanager
async def proxy(folder: Path, gateway: str, *, grpc: str = "", most: int = 100) -> AsyncIterator[Proxy]:
    """A proxy before this gateway."""
    layout = Layout(folder / "data")
    certify(layout, CERTIFIED_NAMES, now=now(), certificate=layout.tls_proxy_certificate)
    ways = Ways(gateway=read_address(gateway), grpc=grpc)
    files = CertificateFiles(layout.tls_proxy_certificate, layout.tls_proxy_certificate)
    certificate = FollowedCertificate(files, ways.protocols)
    certificate.look()
    tunnels = Tunnels(ways, certificate, most=most)
    server = await asyncio.get_running_loop().create_server(tunnels.entrance, "127.0.0.1", 0)
    try:
        yield Proxy(server.sockets[0].getsockname()[1], layout.tls_authority, tunnels)
    finally:
        server.close()
        await tunnels.close(0)


@asynccontextmanager
async def echoing(path: Path) -> AsyncIterator[str]:
    """A unix socket that says what it hears, after a greeting."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"grpc:")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(echo, str(path))
    try:
        yield str(path)
    finally:
        server.close()


@on_both_loops
def test_a_client_that_knows_only_googles_address(tmp_path: Path, loop: Loop) -> None:
    """It is answered by this server's gateway, unary and streamed, over one connection."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address)) as served,
            proxy(tmp_path, served.url) as through,
            through.client() as client,
        ):
            for stream in (False, True):
                answer = await client.post(f"{ENDPOINT}/chat/completions", json=CHAT | {"stream": stream})
                assert answer.status_code == 200
                assert "tok" in answer.text

    run(main(), loop)


@on_both_loops
@pytest.mark.parametrize(
    ("offered", "leads_to"), [(["h2"], b"grpc:"), (["h2", "http/1.1"], b"HTTP/1.1 "), (["http/1.1"], b"HTTP/1.1 ")]
)
def test_the_protocol_says_where_it_leads(tmp_path: Path, loop: Loop, offered: list[str], leads_to: bytes) -> None:
    """gRPC's clients offer HTTP/2 alone; who can do with HTTP/1.1 gets to a gateway."""

    async def main() -> None:
        async with (
            gateway_before(tmp_path) as served,
            echoing(tmp_path / "g") as grpc,
            proxy(tmp_path, served.url, grpc=grpc) as through,
        ):
            reader, writer = await through.secure(offered)
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.read(65536)).startswith(leads_to)
            writer.close()

    run(main(), loop)


@on_both_loops
def test_much_goes_both_ways_whole(tmp_path: Path, loop: Loop) -> None:
    """Nothing is lost or held without bound, however slowly the other side reads."""
    size = 8 * 2**20

    async def main() -> None:
        async with echoing(tmp_path / "g") as grpc, proxy(tmp_path, "http://127.0.0.1:1", grpc=grpc) as through:
            reader, writer = await through.secure(["h2"])
            sending = asyncio.create_task(_send(writer, b"x" * size))
            assert await reader.readexactly(5) == b"grpc:"
            assert await reader.readexactly(size) == b"x" * size
            await sending
            writer.close()

    async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    run(main(), loop)


@on_both_loops
def test_a_client_that_leaves_stops_the_engine(tmp_path: Path, loop: Loop) -> None:
    """Its tunnel ends, and with it what the gateway does for it."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address)) as served,
            proxy(tmp_path, served.url) as through,
        ):
            engine.script = Script(hang=True)
            async with through.client() as client:
                asking = asyncio.create_task(client.post(f"{ENDPOINT}/chat/completions", json=CHAT))
                await engine.until(began=1)
                asking.cancel()
            await engine.until(cancelled=1)
            await through.tunnels.close(20)

    run(main(), loop)


@on_both_loops
def test_others_names_are_refused_and_closed(tmp_path: Path, loop: Loop) -> None:
    """The reason is told, nothing is connected to, and the connection ends."""

    async def main() -> None:
        async with proxy(tmp_path, "http://127.0.0.1:1") as through:
            for request, status in (
                (CONNECT.replace(HOST.encode(), b"example.org"), b"403"),
                (b"GET / HTTP/1.1", b"405"),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
                writer.write(request)
                async with asyncio.timeout(20):
                    assert (await reader.read()).startswith(b"HTTP/1.1 " + status)
                writer.close()

    run(main(), loop)


@on_both_loops
def test_what_is_no_handshake_ends(tmp_path: Path, loop: Loop) -> None:
    """After the tunnel stands, bytes that are no TLS close it; so does a gateway that is not there."""

    async def main() -> None:
        async with proxy(tmp_path, "http://127.0.0.1:1") as through:
            reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
            writer.write(CONNECT)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
            await _closed(reader)
            writer.close()
            reader, writer = await through.secure(["http/1.1"])
            await _closed(reader)
            writer.close()
            await through.tunnels.close(20)

    run(main(), loop)


async def _closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(20):
        try:
            while await reader.read(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            pass


@on_both_loops
def test_there_are_only_so_many(tmp_path: Path, loop: Loop) -> None:
    """One connection more than may be is closed; when another has ended, there is room again."""

    async def main() -> None:
        async with proxy(tmp_path, "http://127.0.0.1:1", most=1) as through:
            first = socket.create_connection(("127.0.0.1", through.port))
            await asyncio.sleep(0)
            reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
            await _closed(reader)
            writer.close()
            first.close()
            await through.tunnels.close(20)
            reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 405")
            writer.close()

    run(main(), loop)


def test_only_the_proxy_shows_googles_names(tmp_path: Path) -> None:
    """Its certificate is another one than the TLS port's, of the same authority, and each is renewed by itself."""
    layout = Layout(tmp_path)
    certify(layout, ("localhost",), now=now())
    server = layout.tls_certificate.read_bytes()
    assert certify(layout, CERTIFIED_NAMES, now=now(), certificate=layout.tls_proxy_certificate)
    assert not certify(layout, CERTIFIED_NAMES, now=now(), certificate=layout.tls_proxy_certificate)
    assert not certify(layout, ("localhost",), now=now())
    assert layout.tls_certificate.read_bytes() == server
    assert layout.tls_proxy_certificate.read_bytes() != server
