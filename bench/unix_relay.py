"""A loopback port before an engine's unix socket, for gateways that know ports only: bytes, and nothing else.

python bench/unix_relay.py PORT SOCKET
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

PIECE_BYTES = 64 * 1024


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _serve(port: int, path: str) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await asyncio.open_unix_connection(path)
        await asyncio.gather(_pipe(reader, to_engine), _pipe(from_engine, writer))

    async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
