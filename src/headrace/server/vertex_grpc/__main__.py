"""The process that speaks gRPC."""

from __future__ import annotations

import asyncio
import logging
import os

from headrace.server import process


def main() -> None:
    """Entry of the process."""
    parser = process.arguments(__doc__)
    parser.add_argument("--gateway-url", required=True, help="who answers")
    parser.add_argument("--https-host", default="localhost", help="host and port of the TLS port, as clients know it")
    parser.add_argument("--drain-timeout-s", type=float, required=True)
    parser.add_argument("--grpc-address", default="", help="host and port for gRPC over TLS; none without")
    parser.add_argument("--tls-certificate", default="", help="PEM; followed as it changes")
    parser.add_argument("--tls-key", default="", help="PEM; may be the same file")
    options = process.parse(parser)
    layout = process.begin("grpc", options)
    # Each handshake that fails would be a line in a file that nobody rotates. Read when gRPC is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # So would each value of metadata that is no text, with the value in it, which may be a key.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    from headrace.server.vertex_grpc.serving import serve  # noqa: PLC0415

    asyncio.run(serve(layout, options))


if __name__ == "__main__":
    main()
