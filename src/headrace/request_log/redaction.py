"""What an operator does not want to be written is replaced before anything is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

MARK = "[redacted]"

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
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._key = key

    def __bool__(self) -> bool:
        return bool(self._paths or self._patterns)

    def apply(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """The value as it may be written.

        Args:
            value: As `msgspec.json.decode` gives it.
            path: Names of the members that lead to it; lists on the way have none.
        """
        if isinstance(value, dict):
            return {self._text(name): self._member(item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self.apply(item, path) for item in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            written = str(value)
            return value if self._text(written) == written else MARK
        return value

    def _member(self, value: Any, path: tuple[str, ...]) -> Any:
        named = path[-1] in self._last and any(path[-len(one) :] == one for one in self._paths)
        return self._hidden(value) if named and value is not None else self.apply(value, path)

    def _hidden(self, value: Any) -> dict[str, Any]:
        """Enough to tell whether two are the same, and how long they are: characters of a text, or of the JSON."""
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        digest = hashlib.blake2b(text.encode(), key=self._key, digest_size=_DIGEST_BYTES).hexdigest()
        return {"redacted": {"length": len(text), "hash": digest}}

    def _text(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(MARK, text)
        return text
