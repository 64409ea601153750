"""A request's head as the parser makes it."""

from __future__ import annotations

import msgspec

from headrace.gateway.request_head import Headers

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class ReceivedHead(msgspec.Struct, frozen=True):
    """A request's head as it came.

    Attributes:
        method: In capitals.
        target: The path, percent-encoded.
        query: What follows the question mark.
        headers: Names in lower case.
        version: HTTP's minor version: 0 or 1.
        keep_alive: Whether the client would send another request on this connection.
        expects_continue: Whether the client waits for ``100 Continue`` before it sends the body.
    """

    method: str
    target: bytes
    query: bytes
    headers: Headers
    version: int
    keep_alive: bool
    expects_continue: bool

    @property
    def framing(self) -> Headers:
        """The headers that say where the body ends; empty without a body."""
        framing = [header for header in self.headers if header[0] in _FRAMING]
        return [] if framing == [(b"content-length", b"0")] else framing
