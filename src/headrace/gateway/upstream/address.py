"""Where an upstream server listens."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec


class Address(msgspec.Struct, frozen=True):
    """A unix socket's path, or a host and a port.

    Attributes:
        host_header: What goes into ``Host``.
    """

    host_header: bytes
    path: str = ""
    host: str = ""
    port: int = 0


def read_address(text: str) -> Address:
    """The address that ``unix:/path`` or ``http://host:port`` stands for.

    Raises:
        ValueError: It is neither.
    """
    if text.startswith("unix:/"):
        return Address(b"localhost", path=text.removeprefix("unix:"))
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{text!r} is neither unix:/path nor http://host:port")
    return Address(parts.netloc.encode("ascii"), host=parts.hostname, port=parts.port or 80)
