"""In what form a client of Google's APIs wants its answer: ``alt`` in the query, which is also written ``$alt``."""

from __future__ import annotations

from urllib.parse import parse_qs

_NAMES = ("alt", "$alt")


def wants_events(query: bytes) -> bool:
    """Whether a streamed answer is to be server-sent events; else it is one JSON array."""
    return any(value == "sse" for value in _values(query))


def is_strict(query: bytes) -> bool:
    """Whether the client reads the answer as a protocol buffer's JSON, which knows no fields but the message's own.

    The vendor's generated libraries say so with every request (``$alt=json;enum-encoding=int``).
    """
    return any(value.startswith("json") for value in _values(query))


def _values(query: bytes) -> list[str]:
    asked = parse_qs(query.decode("latin-1"))
    return [value for name in _NAMES for value in asked.get(name, ())]
