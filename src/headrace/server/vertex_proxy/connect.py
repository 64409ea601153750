"""Which requests the proxy serves: ``CONNECT`` for the names of Vertex AI, and nothing else (RFC 9110, 9.3.6)."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec

MAX_HEAD_BYTES = 8 * 1024

CERTIFIED_NAMES = ("*.googleapis.com",)
"""What the proxy's certificate is good for: a region's name cannot be told apart from others by a wildcard."""

_HOST = re.compile(r"(?:(?:[a-z0-9]+-)*aiplatform|oauth2|iamcredentials)\.googleapis\.com")
"""Vertex AI's of every region, and those that Google's libraries ask for tokens."""

_LINE = re.compile(r"CONNECT ([!-~]+) HTTP/1\.[01]")
_METHOD = b"CONNECT "
_PORT = re.compile(r"[0-9]{1,5}")
"""Any: answers name dedicated endpoints at the TLS port's, and whatever the port, it leads to this server."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not served.

    Attributes:
        status: Of the answer.
        reason: A sentence for a person.
    """

    status: HTTPStatus
    reason: str

    def answer(self) -> bytes:
        """The whole answer; the connection closes after it."""
        body = f"{self.reason}\n".encode()
        head = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def read_connect(received: bytes) -> str | Refusal | None:
    """The host that is asked for; a refusal as soon as it is certain; None while nothing is.

    Args:
        received: All that the client has sent so far.
    """
    if not received.startswith(_METHOD[: len(received)]):
        return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "This proxy answers CONNECT, for the names of Vertex AI.")
    head, whole, rest = received.partition(b"\r\n\r\n")
    if len(head) > MAX_HEAD_BYTES:
        return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The head is over {MAX_HEAD_BYTES} bytes.")
    if not whole:
        return None
    if rest:
        return Refusal(HTTPStatus.BAD_REQUEST, "Something follows the head before it was answered.")
    return _host_in(head.partition(b"\r\n")[0].decode("latin-1"))


def _host_in(first_line: str) -> str | Refusal:
    line = _LINE.fullmatch(first_line)
    if line is None:
        return Refusal(HTTPStatus.BAD_REQUEST, "The first line is no CONNECT of HTTP/1.")
    host, _, port = line[1].lower().rpartition(":")
    host = host.rstrip(".")
    if not _PORT.fullmatch(port) or not _HOST.fullmatch(host):
        return Refusal(HTTPStatus.FORBIDDEN, "This proxy leads to Headrace, by the names of Vertex AI only.")
    return host
