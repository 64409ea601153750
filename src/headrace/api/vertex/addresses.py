"""Where the vendor's clients find an endpoint of its own address."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from fastapi import Request

from headrace.api.requests import context_of


def dedicated_dns(request: Request) -> str:
    """Host and port of dedicated endpoints: the TLS port, under the name by which the caller reached this server.

    The vendor's SDK puts ``https://`` before it, whatever it is. Empty without a TLS port.
    """
    tls_port = urlsplit(_tls_url(request)).port
    if tls_port is None:
        return ""
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return f"[{name}]:{tls_port}" if ":" in name else f"{name}:{tls_port}"


def _tls_url(request: Request) -> str:
    """This server's own, as it wrote it down at its start."""
    try:
        return str(msgspec.json.decode(context_of(request).layout.local_login.read_bytes()).get("tls_url", ""))
    except (OSError, msgspec.DecodeError):
        return ""
