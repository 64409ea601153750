"""The gateway process: owns the public ports and the admin socket on which control pushes routing snapshots."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path

import uvloop

from headrace.gateway import Cors, Gateway, HttpServer, Limits, Sibling
from headrace.request_log import LogFiles, LogFormat
from headrace.resources.layout import Layout, gateway_name
from headrace.server import garbage, open_files, process
from headrace.server.listening import unix_socket
from headrace.server.short_turns import take_short_turns
from headrace.server.tls.files import CertificateFiles, FollowedCertificate
from headrace.server.tls.port import TlsPort
from headrace.server.tracing import start_tracing

_LOGGER = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 2.0
"""For answers that were broken off to be read to their end."""


SWITCH_S = 0.0002
"""How long a thread may keep the interpreter while the event loop wants it, for which all streams wait: one that writes
the text of metrics, encodes spans or saves a snapshot. Python's own is 5 ms."""


async def _run(layout: Layout, listener: socket.socket, options: process.Options) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    gateway = Gateway(
        snapshot_path=layout.snapshot_of(options.number),
        control_address=f"unix:{layout.control_socket}",
        admin_token=process.internal_token(layout),
        limits=Limits(stall_timeout_s=options.stall_timeout_s),
        log_files=LogFiles(
            format=LogFormat(options.request_log_format),
            max_bytes=options.request_log_max_bytes,
            folder=layout.request_log,
            writers=options.gateways,
        ),
        tracing=start_tracing(options.otlp_traces_endpoint),
        number=options.number,
        others=_others(layout, options),
        usage_folder=layout.usage_dir,
    )
    public, admin = _public(gateway, options), HttpServer(gateway.admin.handle)
    await public.start(listener)
    following = await _serve_tls(public, options)
    watching, leasing = asyncio.create_task(gateway.watch()), asyncio.create_task(gateway.lease())
    sweeping = asyncio.create_task(garbage.sweep(lambda: gateway.idle))
    await admin.start(unix_socket(layout.gateway_socket_of(options.number)))
    process.settle()
    sys.setswitchinterval(SWITCH_S)
    take_short_turns()
    process.notify(options, "ready")
    await stop.wait()
    leasing.cancel()
    if following is not None:
        following.cancel()
    public.retire()  # the supervisor holds the socket: who comes now waits for the next gateway
    await admin.close(CLOSE_TIMEOUT_S)  # and control talks to that one, at once
    gateway.hand_over()
    process.notify(options, "draining")
    if await gateway.drain(options.drain_timeout_s, public.emptied):
        gateway.break_off()
    watching.cancel()
    sweeping.cancel()
    await public.close(CLOSE_TIMEOUT_S)
    await gateway.close()


def _public(gateway: Gateway, options: process.Options) -> HttpServer:
    """The server of both public ports."""
    if not options.cors_origin:
        return HttpServer(gateway.handle, max_connections=_max_connections())
    cors = Cors(options.cors_origin, gateway.handle)
    return HttpServer(cors.handle, max_connections=_max_connections(), marks=cors.marks)


def _others(layout: Layout, options: process.Options) -> list[Sibling]:
    return [
        Sibling(
            number=number,
            admin=f"unix:{layout.gateway_socket_of(number)}",
            snapshot_path=layout.snapshot_of(number),
        )
        for number in range(options.gateways)
        if number != options.number
    ]


def _max_connections() -> int:
    files = open_files.raise_limit()  # nothing is started by this process that would inherit it
    _LOGGER.info("%s", open_files.sentence(files))
    return open_files.connections(files)


async def _serve_tls(public: HttpServer, options: process.Options) -> asyncio.Task[None] | None:
    """Serve the TLS port, if there is to be one; the task follows its certificate."""
    if options.tls_listen_fd < 0:
        return None
    files = CertificateFiles(Path(options.tls_certificate), Path(options.tls_key))
    port = TlsPort(public, socket.socket(fileno=options.tls_listen_fd), FollowedCertificate(files))
    await port.look()
    return asyncio.create_task(port.follow())


def main() -> None:
    """Entry of the process."""
    parser = process.arguments(__doc__)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--drain-timeout-s", type=float, required=True)
    parser.add_argument("--stall-timeout-s", type=float, required=True)
    parser.add_argument("--tls-listen-fd", type=int, default=-1)
    parser.add_argument("--tls-certificate", default="", help="PEM; followed as it changes")
    parser.add_argument("--tls-key", default="", help="PEM; may be the same file")
    parser.add_argument("--otlp-traces-endpoint", default="")
    parser.add_argument("--request-log-format", choices=[*LogFormat])
    parser.add_argument("--request-log-max-bytes", type=int)
    parser.add_argument("--cors-origin", action="append", default=[], help="whose pages may read answers")
    parser.add_argument("--number", type=int, default=0, help="of this gateway, from 0")
    parser.add_argument("--gateways", type=int, default=1, help="how many serve the ports")
    options = process.parse(parser)
    layout = process.begin(gateway_name(options.number), options)
    listener = socket.socket(fileno=options.listen_fd)
    uvloop.run(_run(layout, listener, options))


if __name__ == "__main__":
    main()
