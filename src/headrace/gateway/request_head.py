"""What a request says of itself before its body."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Names in lower case, in the order they came."""


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """The request line and the headers.

    Attributes:
        target: The path as it was sent: percent-encoded, without the query.
        client: Network address of the peer; empty on a unix socket.
        scheme: ``http`` or ``https``.
    """

    method: str
    target: bytes
    query: bytes
    headers: Headers
    client: str
    scheme: str

    def header(self, name: bytes) -> bytes | None:
        """The first value under this name (lower case)."""
        for key, value in self.headers:  # several times a request: a generator takes twice as long
            if key == name:
                return value
        return None

    @property
    def content_length_bytes(self) -> int | None:
        """What the client says of its body's size; None if it comes in chunks or there is none."""
        value = self.header(b"content-length")
        return int(value) if value is not None and value.isdigit() else None
