"""Where a server can be reached: what `headrace serve` leaves for commands of the same user on its machine."""

from __future__ import annotations

import msgspec


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """All ways into one server; empty where there is none.

    Attributes:
        url: The plain port.
        tls_url: The TLS port.
        tls_authority: The file of the authority that its certificate is of, if that is this server's own.
        grpc: Host and port for gRPC, with the TLS port's certificate.
        proxy_url: The proxy for the names of Vertex AI.
        proxy_authority: The file of the authority of the certificate that the proxy shows.
    """

    url: str
    tls_url: str = ""
    tls_authority: str = ""
    grpc: str = ""
    proxy_url: str = ""
    proxy_authority: str = ""
