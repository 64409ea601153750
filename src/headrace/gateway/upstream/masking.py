"""Keeps a server's key out of what the server says: some repeat a request's headers in their errors."""

from __future__ import annotations

import json

SHORTEST_SECRET = 8
"""A shorter one is no key that anybody issues, and stands in honest text."""

_MASK = "***"
_ESCAPED_BY_GO = "<>&"
_ESCAPED_BY_DOTNET = "\"&'+<>`"


class Secret:
    """A key, in every way in which it may stand in an answer.

    Args:
        key: Plain ASCII; one of fewer than `SHORTEST_SECRET` characters is not looked for.
    """

    def __init__(self, key: str) -> None:
        self._key = key if len(key) >= SHORTEST_SECRET else ""
        self.forms = tuple(form.encode("ascii") for form in _written(self._key)) if self._key else ()

    def __repr__(self) -> str:
        return "Secret()"  # never the key

    def hide(self, data: bytes) -> bytes:
        """The data with a mark in place of the key."""
        for form in self.forms:
            data = data.replace(form, _MASK.encode("ascii"))
        return data

    def hide_in(self, text: str) -> str:
        """The same for text that was decoded."""
        return text.replace(self._key, _MASK) if self._key else text


class Masking:
    """Hides a secret in an answer that comes in pieces, wherever the network cut it.

    Only what may be the beginning of the secret is held until the next piece. That is never so at the end of an event
    or of a line: a key has no white space.
    """

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What can be passed on now; may be empty."""
        data = self._secret.hide(self._held + piece)
        held = max((_begun(form, data) for form in self._secret.forms), default=0)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def rest(self) -> bytes:
        """What is left at the answer's end."""
        rest, self._held = self._held, b""
        return rest


def _begun(form: bytes, data: bytes) -> int:
    """How many bytes at the end of the data may be the beginning of the form."""
    at = data.find(form[:1], max(0, len(data) - len(form) + 1))
    while at >= 0:
        if form.startswith(data[at:]):
            return len(data) - at
        at = data.find(form[:1], at + 1)
    return 0


def _written(key: str) -> list[str]:
    """As it is, and as JSON is written: with the escapes that it needs, and those of PHP, Go and .NET besides."""
    plain = json.dumps(key)[1:-1]
    go = "".join(f"\\u{ord(each):04x}" if each in _ESCAPED_BY_GO else each for each in plain)
    dotnet = "".join(
        f"\\u{ord(each):04X}" if each in _ESCAPED_BY_DOTNET else "\\\\" if each == "\\" else each for each in key
    )
    return list(dict.fromkeys([key, plain, plain.replace("/", "\\/"), go, dotnet]))
