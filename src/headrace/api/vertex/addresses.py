"""Where the vendor's clients find an endpoint of its own address."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from fastapi import Request

from headrace.api.requests import context_of


def dedicated_dns(request: Request) -> str:
    """Host and port of dedicated endpoints: the TLS port, under the name by which the caller reached this server.

    The vendor's SDK puts ``https://`` before it, whatever it is. Empty without a TLS port.
    """
    tls_port = urlsplit(_tls_url(context_of(request).layout.local_login)).port
    if tls_port is None:
        return ""
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return f"[{name}]:{tls_port}" if ":" in name else f"{name}:{tls_port}"


def _tls_url(login: Path) -> str:
    """This server's own, as it wrote it down at its start; empty where it did not."""
    try:
        written = os.stat(login)
    except OSError:
        return ""
    return _read_tls_url(login, written.st_ino, written.st_mtime_ns, written.st_size)


@lru_cache(maxsize=8)
def _read_tls_url(login: Path, *_version: int) -> str:
    """Read once for each version of the file: every answer that shows an endpoint has it."""
    try:
        return str(msgspec.json.decode(login.read_bytes()).get("tls_url", ""))
    except (OSError, msgspec.DecodeError):
        return ""
