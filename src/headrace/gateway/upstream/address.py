"""Where an upstream server listens."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec


class Address(msgspec.Struct, frozen=True):
    """A unix socket's path, or a host and a port.

    Attributes:
        host_header: What goes into ``Host``.
        tls: Whether the connection is encrypted and the server's certificate checked.
    """

    host_header: bytes
    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False


def read_address(text: str) -> Address:
    """The address that ``unix:/path``, ``http://host:port`` or ``https://host:port`` stands for.

    Raises:
        ValueError: It is none of these.
    """
    if text.startswith("unix:/"):
        return Address(b"localhost", path=text.removeprefix("unix:"))
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is neither unix:/path nor http://host:port nor https://host:port")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return Address(parts.netloc.encode("ascii"), host=parts.hostname, port=port, tls=tls)
