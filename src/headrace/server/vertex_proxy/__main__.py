"""The proxy for the names of Vertex AI, on a socket that the supervisor opened."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

import uvloop

from headrace.gateway.upstream import read_address
from headrace.resources.errors import TlsCertificateInvalid
from headrace.resources.layout import Layout
from headrace.server import open_files, process
from headrace.server.tls.files import CertificateFiles, FollowedCertificate
from headrace.server.tls.port import LOOK_EVERY_S
from headrace.server.vertex_proxy.tunnel import Tunnels, Ways

_LOGGER = logging.getLogger(__name__)


async def _run(layout: Layout, options: process.Options) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    ways = Ways(gateway=read_address(options.gateway_url), grpc=options.grpc_socket)
    files = CertificateFiles(layout.tls_proxy_certificate, layout.tls_proxy_certificate)
    certificate = FollowedCertificate(files, ways.protocols)
    certificate.look()
    tunnels = Tunnels(ways, certificate, most=open_files.connections(open_files.raise_limit()))
    server = await loop.create_server(tunnels.entrance, sock=socket.socket(fileno=options.listen_fd))
    following = asyncio.create_task(_follow(certificate))
    process.notify(options, "ready")
    await stop.wait()
    following.cancel()
    server.close()
    await tunnels.close(options.drain_timeout_s)


async def _follow(certificate: FollowedCertificate) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            certificate.look()
        except TlsCertificateInvalid as error:
            _LOGGER.warning("no new TLS certificate, the one before it is shown on: %s", error)


def main() -> None:
    """Entry of the process."""
    parser = process.arguments(__doc__)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--gateway-url", required=True, help="who answers HTTP/1.1")
    parser.add_argument("--grpc-socket", default="", help="who answers gRPC; nobody without")
    parser.add_argument("--drain-timeout-s", type=float, required=True)
    options = process.parse(parser)
    layout = process.begin("proxy", options)
    uvloop.run(_run(layout, options))


if __name__ == "__main__":
    main()
