"""What the server itself answers, before any handler has seen the request."""

from __future__ import annotations

import msgspec

from headrace.contracts.vertex.errors import google_error
from headrace.gateway.http1.answer import status_line
from headrace.resources.errors import HeadersTooLarge, HeadraceError, RequestTooSlow


def refusal(error: HeadraceError, date_line: bytes) -> bytes:
    """A whole answer, after which the connection closes."""
    status, document = google_error(error)
    body = msgspec.json.encode(document)
    framing = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return status_line(status) + date_line + framing + body


def too_large(limit_bytes: int) -> HeadersTooLarge:
    """A head, or trailers, that do not end in time."""
    return HeadersTooLarge(
        "The request's line and headers are too large.",
        evidence=f"They have more than {limit_bytes} bytes, which is the limit.",
        fix="Send data in the body, and drop the headers that are not needed.",
    )


def too_slow(patience_s: float) -> RequestTooSlow:
    """A body that stops."""
    return RequestTooSlow(
        "The request's body stopped in its middle.",
        evidence=f"Nothing came for {patience_s:g} s.",
        fix="Send the request again.",
    )
