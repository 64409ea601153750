"""What the server itself answers, before any handler has seen the request."""

from __future__ import annotations

import math

import msgspec

from headrace.contracts.vertex.errors import google_error
from headrace.gateway.http1.answer import status_line
from headrace.gateway.request_head import Headers
from headrace.resources.errors import (
    HeadersTooLarge,
    HeadraceError,
    RequestTooSlow,
    TlsExpected,
    TooManyConnections,
)

RETRY_AFTER_S = 1.0
"""For a place among the connections: those of requests end within seconds, and nobody knows which."""


def refusal(error: HeadraceError, date_line: bytes, marks: Headers) -> bytes:
    """A whole answer, after which the connection closes.

    Args:
        error: Why.
        date_line: Its ``Date``.
        marks: Headers that it has besides.
    """
    status, document = google_error(error)
    body = msgspec.json.encode(document)
    framing = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    later = b"" if error.retry_after_s is None else b"retry-after: %d\r\n" % math.ceil(error.retry_after_s)
    marked = b"".join(b"%b: %b\r\n" % mark for mark in marks)
    return status_line(status) + date_line + later + marked + framing + body


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


def head_too_slow(patience_s: float) -> RequestTooSlow:
    """A head that does not come to its end."""
    return RequestTooSlow(
        "The request's line and headers did not come to their end in time.",
        evidence=f"{patience_s:g} s have passed since their first byte.",
        fix="Send the request again, whole.",
    )


def too_many(limit: int) -> TooManyConnections:
    """A connection for which there is no room."""
    return TooManyConnections(
        "The server holds as many connections as it can.",
        evidence=f"They are {limit}, which is what its limit of open files allows.",
        fix="Try again; reuse connections, or raise the server's limit (`ulimit -Hn`).",
        retry_after_s=RETRY_AFTER_S,
    )


def without_tls() -> TlsExpected:
    """HTTP in the clear on the port of TLS."""
    return TlsExpected(
        "This port speaks TLS only.",
        evidence="The request came unencrypted.",
        fix="Write https:// where the address says http://, or use the server's plain port.",
    )
