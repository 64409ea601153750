"""Our HTTP server and our upstream client with nothing in between: what the data plane costs before it does its work.

python gateway_bare.py PORT ENGINE_PORT
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop

from headrace.gateway import HttpServer
from headrace.gateway.exchange import Exchange
from headrace.gateway.upstream import Upstream, UpstreamRequest, read_address

_OF_THE_REQUEST = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding"})
_OF_THE_ANSWER = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"date"})
_BODY_BYTES = 1 << 20
_TIMEOUT_S = 120.0


async def _run(port: int, engine_port: int) -> None:
    engine = Upstream(read_address(f"http://127.0.0.1:{engine_port}"), connect_timeout_s=5)

    async def handle(exchange: Exchange) -> None:
        head = exchange.head
        request = UpstreamRequest(
            method=head.method,
            target=head.target,
            headers=[header for header in head.headers if header[0] not in _OF_THE_REQUEST],
            body=await exchange.read_all(_BODY_BYTES),
        )
        async with await engine.send(request, timeout_s=_TIMEOUT_S, stall_timeout_s=_TIMEOUT_S) as answer:
            headers = [header for header in answer.headers if header[0] not in _OF_THE_ANSWER]
            await exchange.start(answer.status, headers)
            while piece := await answer.read():
                await exchange.write(piece)
            await exchange.end()

    server = HttpServer(handle)
    await server.start(socket.create_server(("127.0.0.1", port), backlog=2048))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1]), int(sys.argv[2])))
