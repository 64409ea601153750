"""Where a JSON object ends, in text that comes in pieces. Pure."""

from __future__ import annotations

import re


class JsonScan:
    """Finds where a JSON object ends that begins at the text's first character, or where the block's marker cuts it.

    Args:
        closing: The marker; one inside a string is a part of the string. Empty for none.
        depth: Objects that are open already.

    Attributes:
        balanced: Whether the end that was found is the object's own, not a marker.
        held_chars: Characters at the end of the text that may be the beginning of the marker.
    """

    def __init__(self, closing: str, depth: int = 0) -> None:
        self._closing = closing
        self._specials = re.compile(rf'[{{}}\[\]"\\{re.escape(closing[:1])}]')
        self._depth = depth
        self._in_string = False
        self._position = 0
        self.balanced = False
        self.held_chars = 0

    def find_end(self, text: str) -> int | None:
        """Where it ends; None while it does not. Called again with the same text and more."""
        self.held_chars = 0
        while match := self._specials.search(text, self._position):
            at, character = match.start(), match.group()
            self._position = at + 1
            if self._in_string:
                if character == "\\":
                    self._position = at + 2  # whatever is escaped, it does not end the string
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.balanced = True
                    return at + 1
            elif self._closing.startswith(text[at : at + len(self._closing)]):
                self._position = at
                if len(text) - at >= len(self._closing):
                    return at
                self.held_chars = len(text) - at
                return None
        self._position = max(self._position, len(text))
        return None

    def moved(self, chars: int) -> None:
        """The text now begins this much later."""
        self._position = max(0, self._position - chars)
