"""Token usage in an engine's answer, found without reading the rest of it."""

from __future__ import annotations

import re

import msgspec

_TAIL_BYTES = 8 * 1024
"""How far from its end an answer's ``usage`` may begin: engines write it last, or with a few small fields behind it."""

_MEMBER = b'"usage"'
_OBJECT = re.compile(rb"\s*:\s*\{")
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,12})')
_COMPLETION = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,12})')


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int


class UsageFinder:
    """Keeps the end of an answer as it passes by, and finds the last ``usage`` in it.

    Text that a model made cannot be taken for it: quotes inside JSON strings are escaped.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._bytes = 0

    def feed(self, piece: bytes) -> None:
        """See the next piece of the answer."""
        self._pieces.append(piece)
        self._bytes += len(piece)
        while self._bytes - len(self._pieces[0]) >= _TAIL_BYTES:
            self._bytes -= len(self._pieces.pop(0))  # there are few, and a deque costs more to make

    def usage(self) -> Usage | None:
        """What the answer said; None if it said nothing."""
        return usage_in(b"".join(self._pieces)[-_TAIL_BYTES:])


def usage_in(tail: bytes) -> Usage | None:
    """The last ``usage`` in the end of an answer; None without one that has a prompt's tokens."""
    at = tail.rfind(_MEMBER)
    while at >= 0:
        if _OBJECT.match(tail, at + len(_MEMBER)) is not None:
            prompt, completion = _PROMPT.search(tail, at), _COMPLETION.search(tail, at)
            return None if prompt is None else Usage(int(prompt[1]), int(completion[1]) if completion else 0)
        at = tail.rfind(_MEMBER, 0, at)
    return None
