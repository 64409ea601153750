"""What an upstream server is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from headrace.gateway.request_head import Headers
from headrace.gateway.upstream.address import Address


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent.

    Attributes:
        target: Path and query, percent-encoded.
        headers: Without ``host`` and without those that frame the body.
        host: For the ``Host`` header, if not the address's own.
        body: All of it, or its pieces as they come.
        length_bytes: Of a body in pieces, if it is known beforehand; else it goes out in chunks.
        repeatable: Whether sending it twice does no harm. Needed for the second try on a stale connection; one that is
            not repeatable never uses a kept connection.
    """

    method: str
    target: bytes
    headers: Headers
    host: bytes | None = None
    body: bytes | AsyncIterator[bytes] = b""
    length_bytes: int | None = None
    repeatable: bool = True

    def encode(self, address: Address) -> bytes:
        """The head, with the body behind it if that is all there.

        Raises:
            ValueError: It would be read as another head, or as several: something in it ends a line.
        """
        host = address.host_header if self.host is None else self.host
        parts = [self.method.encode("ascii"), b" ", self.target, b" HTTP/1.1\r\nhost: ", host, b"\r\n"]
        for name, value in self.headers:
            parts += (name, b": ", value, b"\r\n")
        body = self.body
        lines = len(self.headers) + 4  # with the first, the host's, the body's length and the empty one
        if not isinstance(body, bytes):
            length = self.length_bytes
            parts.append(b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length)
        elif body or self.method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
            parts.append(b"content-length: %d\r\n" % len(body))
        else:
            lines -= 1
        parts.append(b"\r\n")
        head = b"".join(parts)
        if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
            raise ValueError("Something in a request's head ends a line.")
        return head + body if isinstance(body, bytes) and body else head
