"""The server of gRPC: on a port of its own, and on a unix socket for the proxy."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path
from typing import Any

import grpc

from headrace.gateway.upstream import Upstream, read_address
from headrace.resources.layout import Layout
from headrace.server import open_files, process
from headrace.server.tls.files import CertificateFiles
from headrace.server.vertex_grpc.credentials import FollowedPair
from headrace.server.vertex_grpc.front import MESSAGE_BYTES, Front
from headrace.server.vertex_grpc.methods import vertex_methods

CONNECT_TIMEOUT_S = 10.0

METADATA_BYTES = 64 * 1024
"""As much as a gateway takes for a request's head."""

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.so_reuseport", 1),  # the supervisor keeps the port
    ("grpc.server_handshake_timeout_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


async def serve(layout: Layout, options: process.Options) -> None:
    """Serve until SIGTERM; calls under way may finish then."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    calls = open_files.connections(open_files.raise_limit())
    gateway = Upstream(read_address(options.gateway_url), connect_timeout_s=CONNECT_TIMEOUT_S)
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=calls)
    server.add_generic_rpc_handlers([Front(vertex_methods(), gateway, options.https_host)])
    _open(server, layout, options)
    gc.freeze()  # the library's many classes: no search for cycles has to pass them
    await server.start()
    process.notify(options, "ready")
    await stop.wait()
    await server.stop(options.drain_timeout_s)
    gateway.close()


def _open(server: Any, layout: Layout, options: process.Options) -> None:
    layout.grpc_socket.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{layout.grpc_socket}")
    if options.grpc_address:
        files = CertificateFiles(Path(options.tls_certificate), Path(options.tls_key))
        server.add_secure_port(options.grpc_address, FollowedPair(files).credentials())
