"""From bytes to requests: httptools' parser, held to what two readers cannot take differently."""

from __future__ import annotations

import re
from typing import Protocol

import httptools

from headrace.gateway.request_head import Headers, RequestHead
from headrace.resources.errors import MalformedRequest

_VERSIONS = {"1.0": 0, "1.1": 1}
_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
}
"""Of HTTP and for HTTP, QUERY too, which no path takes; the parser also knows those of WebDAV, RTSP and Icecast."""

_TARGET = re.compile(rb"(/[\x21-\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21-\x22\x24-\x7e]*))?")
"""Path and query as they are sent (RFC 9112, section 3.2.1, and what browsers send beyond it), without a fragment."""


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class Receiver(Protocol):
    """Who hears of the requests."""

    @property
    def client(self) -> str:
        """As `RequestHead` has it."""

    @property
    def scheme(self) -> str:
        """As `RequestHead` has it."""

    def begin(self, head: RequestHead, *, version: int, keep_alive: bool, expects_continue: bool) -> None:
        """A head is complete.

        Args:
            head: What was asked.
            version: HTTP's minor version: 0 or 1.
            keep_alive: Whether the client would send another request on this connection.
            expects_continue: Whether the client waits for ``100 Continue`` before it sends the body.
        """

    def take(self, piece: bytes) -> None:
        """A piece of its body."""

    def complete(self) -> None:
        """The body has ended."""


class RequestParser:
    """Reads the requests of one connection.

    Args:
        receiver: Hears of them.

    Attributes:
        in_head: Whether the next byte belongs to a head, or comes before one; else to a body or its trailers.
        unused_bytes: How many came since there was something for the receiver.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser = httptools.HttpRequestParser(self)
        self._head: RequestHead | None = None  # of the request whose body comes
        self._replaying = False  # a head that was read already is told to a new parser
        self._forget()
        self.in_head = True
        self.unused_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether a head has come as far as its target, and not to its end: somebody asks for something."""
        return bool(self._url)

    @property
    def headers(self) -> Headers:
        """Of a head that has not come to its end: what has come of them."""
        return self._headers

    def close(self) -> None:
        """Be fed no more. It and who hears of the requests hold each other; now they end with their last holder."""
        del self._parser, self._receiver

    def _forget(self) -> None:
        self._url = b""
        self._headers: Headers = []
        self._hosts = 0
        self._expects_continue = False

    def feed(self, piece: bytes) -> None:
        """Read on.

        Raises:
            MalformedRequest: This is no HTTP/1.1, or could be read in two ways.
        """
        self.unused_bytes += len(piece)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            if rest := piece[upgrade.args[0] :]:
                self.unused_bytes -= len(rest)
                self.feed(rest)
        except httptools.HttpParserError as error:
            raise MalformedRequest(
                "This is not a request that can be read as HTTP/1.1.",
                evidence=f"{error.__context__ or error}.",
                fix="Send it with an HTTP client; a proxy in between must speak HTTP/1.1 to this server.",
            ) from error

    def _ignore_upgrade(self) -> None:
        """Go on in HTTP/1.1 with a client that offered another protocol (RFC 9110, section 7.8), as Java's does.

        The parser ends at such a head. A new one is told of the body that follows, if one does.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._head is not None:
            framing = b"".join(b"%b: %b\r\n" % header for header in _framing(self._head))
            self._replaying = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
            self._replaying = False

    # --- from httptools ---

    def on_url(self, url: bytes) -> None:
        """Called by the parser, with each piece of the request's target."""
        if not self._replaying:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too, which are dropped."""
        if not self.in_head or self._replaying:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise ValueError("a request's body is sent as it is or in chunks, in no other transfer encoding")
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._replaying:
            return
        version = _VERSIONS.get(self._parser.get_http_version())
        if version is None:
            raise ValueError(f"this server speaks HTTP/1.1, not HTTP/{self._parser.get_http_version()}")
        method = _METHODS.get(self._parser.get_method())
        if method is None:
            raise ValueError(f"{self._parser.get_method().decode('ascii')} is no method of HTTP")
        if self._hosts > 1 or (version and not self._hosts):
            raise ValueError("an HTTP/1.1 request names one host")
        path, query = _split_target(self._url)
        keep_alive = self._parser.should_keep_alive()
        expects_continue = self._expects_continue and version > 0
        receiver = self._receiver
        head = RequestHead(
            method=method,
            target=path,
            query=query,
            headers=self._headers,
            client=receiver.client,
            scheme=receiver.scheme,
        )
        self._forget()
        self._head = head
        self.in_head = False
        self.unused_bytes = 0
        receiver.begin(head, version=version, keep_alive=keep_alive, expects_continue=expects_continue)

    def on_body(self, piece: bytes) -> None:
        """Called by the parser."""
        self.unused_bytes = 0
        self._receiver.take(piece)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        head = self._head
        if self._parser.should_upgrade() and head is not None and _framing(head):
            return  # it takes the body for another protocol's
        self._head = None
        self.in_head = True
        self.unused_bytes = 0
        self._receiver.complete()


def _framing(head: RequestHead) -> Headers:
    """The headers that say where a request's body ends; empty without a body."""
    framing = [header for header in head.headers if header[0] in _FRAMING]
    return [] if framing == [(b"content-length", b"0")] else framing


def _split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target.

    Raises:
        ValueError: It is neither a path nor a whole URL, or has bytes that no URL has.
    """
    found = _TARGET.fullmatch(target)
    if found is not None:
        return found[1], found[2] or b""
    if not target.isascii():
        raise ValueError("the request's target is not ASCII")
    url = httptools.parse_url(target)  # a whole URL, as proxies are sent (RFC 9112, section 3.2.2)
    if url.path is None and url.host is None:
        raise ValueError("the request's target is no path")
    return url.path or b"/", url.query or b""
