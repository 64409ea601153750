"""Token usage in an engine's answer, found without reading the rest of it."""

from __future__ import annotations

import re

import msgspec

_TAIL_BYTES = 8 * 1024
"""How far from its end an answer's ``usage`` may begin: engines write it last, or with a few small fields behind it."""

_USAGE = re.compile(rb'"usage"\s*:\s*\{')
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
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        """See the next piece of the answer."""
        self._tail = piece[-_TAIL_BYTES:] if len(piece) >= _TAIL_BYTES else (self._tail + piece)[-_TAIL_BYTES:]

    def usage(self) -> Usage | None:
        """What the answer said; None if it said nothing."""
        starts = [found.end() for found in _USAGE.finditer(self._tail)]
        if not starts:
            return None
        said = self._tail[starts[-1] :]
        prompt, completion = _PROMPT.search(said), _COMPLETION.search(said)
        if prompt is None:
            return None
        return Usage(int(prompt[1]), int(completion[1]) if completion else 0)
