"""The gateway process: owns the public port and the admin socket on which control pushes routing snapshots."""

from __future__ import annotations

import asyncio
import signal
import socket

import uvloop

from headrace.gateway import Gateway
from headrace.resources.layout import Layout
from headrace.server import process
from headrace.server.asgi import server, unix_socket


async def _run(layout: Layout, listener: socket.socket, options: process.Options) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    gateway = Gateway(
        snapshot_path=layout.snapshot,
        control_address=f"unix:{layout.control_socket}",
        admin_token=process.internal_token(layout),
    )
    public, admin = server(gateway.app), server(gateway.admin_app)
    serving = [
        asyncio.create_task(public.serve(sockets=[listener])),
        asyncio.create_task(admin.serve(sockets=[unix_socket(layout.gateway_socket)])),
    ]
    await asyncio.gather(public.accepting.wait(), admin.accepting.wait())
    process.notify(options, "ready")
    await stop.wait()
    for accepting in public.servers:
        accepting.close()  # the supervisor holds the socket: who comes now waits for the next gateway
    process.notify(options, "draining")
    await gateway.drain(timeout_s=options.drain_timeout_s)
    public.should_exit = admin.should_exit = True
    await asyncio.gather(*serving)
    await gateway.close()


def main() -> None:
    """Entry of the process."""
    parser = process.arguments(__doc__)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--drain-timeout-s", type=float, required=True)
    options = process.parse(parser)
    layout = process.begin("gateway", options)
    listener = socket.socket(fileno=options.listen_fd)
    listener.setblocking(False)
    uvloop.run(_run(layout, listener, options))


if __name__ == "__main__":
    main()
