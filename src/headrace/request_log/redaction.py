"""What an operator does not want to be written is replaced before anything is."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.request_log.patterns import compiled

MARK = "[redacted]"

MATCH_S = 0.1
MATCH_S_PER_BYTE = 2.0 / 2**20
"""Processor time for the patterns, all in all; 32 plain ones take a thirtieth of it for a MiB of text."""

_DIGEST_BYTES = 16


class Redaction:
    """Goes over JSON values; false if it changes nothing.

    Args:
        fields: As `headrace.resources.request_log.RequestLog` has them.
        patterns: Ditto.
        key: Of the hash: who does not have it cannot try texts until one fits.
    """

    def __init__(self, fields: Sequence[str], patterns: Sequence[str], key: bytes) -> None:
        self._paths = [tuple(field.split(".")) for field in fields]
        self._last = frozenset(path[-1] for path in self._paths)
        self._patterns = [compiled(pattern) for pattern in patterns]
        self._key = key
        self._until_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._paths or self._patterns)

    def apply(self, value: Any, size_bytes: int = 0) -> Any:
        """The value as it may be written.

        Args:
            value: As `msgspec.json.decode` gives it.
            size_bytes: Of the body that it was; a large one is given more time.

        Raises:
            TimeoutError: The patterns take too long for it.
        """
        self._until_s = time.process_time() + MATCH_S + size_bytes * MATCH_S_PER_BYTE
        return self._below(value, ())

    def _below(self, value: Any, path: tuple[str, ...]) -> Any:
        """What is at the end of these names of members; lists on the way have none."""
        if isinstance(value, dict):
            return {self._text(name): self._member(item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self._below(item, path) for item in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            written = str(value)
            return value if self._text(written) == written else MARK
        return value

    def _member(self, value: Any, path: tuple[str, ...]) -> Any:
        named = path[-1] in self._last and any(path[-len(one) :] == one for one in self._paths)
        return self._hidden(value) if named and value is not None else self._below(value, path)

    def _hidden(self, value: Any) -> dict[str, Any]:
        """Enough to tell whether two are the same, and how long they are: characters of a text, or of the JSON."""
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        digest = hashlib.blake2b(text.encode(), key=self._key, digest_size=_DIGEST_BYTES).hexdigest()
        return {"redacted": {"length": len(text), "hash": digest}}

    def _text(self, text: str) -> str:
        for pattern in self._patterns:
            left_s = max(0.0, self._until_s - time.process_time())  # the clock of `regex`; below 0 it is no limit
            text = pattern.sub(MARK, text, timeout=left_s)
        return text
