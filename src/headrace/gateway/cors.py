"""Which web pages may read what the gateway answers: cross-origin resource sharing, as the Fetch standard has it.

A browser lets a page of another origin read an answer only if that says so, and asks before it sends what no form could
send. Keys are bearer tokens that a page has to know and to send itself; nothing here goes by cookies, so credentials in
the standard's sense (``Access-Control-Allow-Credentials``) are never allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from headrace.gateway.exchange import Exchange, Handler
from headrace.gateway.request_head import Headers, RequestHead
from headrace.resources.errors import BadField

EVERY_ORIGIN = "*"

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
"""A scheme, a host and a port: of web pages, and of browsers' extensions and apps, which have schemes of their own."""

_IMPLIED_PORTS = {"http": ":80", "https": ":443"}

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"

_HEADERS = frozenset(
    {
        "accept",
        "authorization",
        "content-type",
        "idempotency-key",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-goog-api-key",
        "x-request-id",
        "x-session-id",
    }
)
_OF_LIBRARIES = re.compile(r"(?:x-stainless|openai|x-goog)-[a-z0-9-]+")
"""What OpenAI's and Google's libraries say of themselves, of organisation and project."""

_EXPOSED = b", ".join(
    (
        b"x-request-id",
        b"retry-after",
        b"www-authenticate",
        b"x-should-retry",
        *(
            b"x-ratelimit-%s-%s" % (what, unit)
            for what in (b"limit", b"remaining", b"reset")
            for unit in (b"requests", b"tokens")
        ),
        b"x-vertex-ai-endpoint-id",
        b"x-vertex-ai-deployed-model-id",
        b"x-vertex-ai-model-id",
    )
)
"""Headers of answers that a page may read."""

_ASKED_FOR_S = 7200
"""How long a browser need not ask again; more is not honoured by Chromium."""


def read_origins(texts: Iterable[str]) -> tuple[str, ...]:
    """Origins as browsers send them: in lower case, without the port that a scheme implies.

    >>> read_origins(["https://Chat.example.org:443", "http://localhost:5173/"])
    ('https://chat.example.org', 'http://localhost:5173')

    Raises:
        BadField: One is no origin; or every origin is meant, and others are named beside.
    """
    found = tuple(dict.fromkeys(_read_origin(text) for text in texts))
    if EVERY_ORIGIN in found and len(found) > 1:
        raise BadField(
            f"{EVERY_ORIGIN!r} means every origin, and others are named beside it.",
            evidence=", ".join(found),
            fix="Name those whose pages may read answers, or every one.",
        )
    return found


class Cors:
    """Answers browsers' questions before a request, and marks the answers that pages may read.

    Args:
        origins: Whose pages; as `read_origins` has them.
        handler: What answers everything else.
    """

    def __init__(self, origins: Iterable[str], handler: Handler) -> None:
        self._origins = frozenset(origin.encode("ascii") for origin in origins)
        self._every = EVERY_ORIGIN.encode() in self._origins
        # A cache is not to give one origin what was meant for another.
        self._vary: Headers = [] if self._every else [(b"vary", b"origin")]
        self._handler = handler

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        head = exchange.head
        allow = self._allow(head.header(b"origin"))
        if allow and head.method == "OPTIONS" and head.header(b"access-control-request-method") is not None:
            await exchange.start(204, [*allow, *self._vary, *_answer_to(head)])
            await exchange.end()
            return
        exchange.added_headers = tuple(self._marks(allow))
        await self._handler(exchange)

    def marks(self, headers: Headers) -> Headers:
        """What marks an answer that no handler makes, by the request's headers: as far as they came, if they came.

        Where the origin is not among them, only pages of every origin may read it, or none.
        """
        origin = next((value for name, value in headers if name == b"origin"), None)
        return self._marks(self._allow(EVERY_ORIGIN.encode() if origin is None and self._every else origin))

    def _marks(self, allow: Headers) -> Headers:
        exposed = [(b"access-control-expose-headers", _EXPOSED)] if allow else []
        return [*allow, *exposed, *self._vary]

    def _allow(self, origin: bytes | None) -> Headers:
        """What tells a browser that a page of this origin may read the answer; empty where it may not."""
        if origin is None or not (self._every or origin in self._origins):
            return []
        return [(b"access-control-allow-origin", EVERY_ORIGIN.encode() if self._every else origin)]


def _answer_to(head: RequestHead) -> Headers:
    """What a page may send: every method that there is, and of the headers that it asked for those that are known."""
    asked = (head.header(b"access-control-request-headers") or b"").decode("latin-1").lower()
    names = {name.strip() for name in asked.split(",")}
    known = sorted(name for name in names if name in _HEADERS or _OF_LIBRARIES.fullmatch(name))
    return [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", ", ".join(known or sorted(_HEADERS)).encode("ascii")),
        (b"access-control-max-age", b"%d" % _ASKED_FOR_S),
    ]


def _read_origin(text: str) -> str:
    origin = text.strip().rstrip("/").lower()
    if origin == EVERY_ORIGIN:
        return origin
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        raise BadField(
            f"{text[:100]!r} is no origin.",
            fix="Write it as the address of a page without its path: https://chat.example.org, http://localhost:5173.",
        )
    scheme, host, port = found.groups(default="")
    return f"{scheme}://{host}{'' if port == _IMPLIED_PORTS.get(scheme) else port}"
