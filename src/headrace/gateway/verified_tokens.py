"""Signed tokens that were found good: a second look costs as much as a key's, a dictionary's."""

from __future__ import annotations

import msgspec

MOST_TOKENS = 8192
"""That are remembered: a client shows the same one for an hour. Some 3 MB; only what a key of ours signed gets in."""


class VerifiedToken(msgspec.Struct, frozen=True):
    """What was found out about a token.

    Attributes:
        key_id: Which key signed it. Whether that is still good is not said here: it may be revoked meanwhile.
        good_until: Unix seconds.
    """

    key_id: str
    good_until: float


class VerifiedTokens:
    """The tokens that were verified last, by their SHA-256.

    Args:
        most: How many are remembered; then the one that was verified first is forgotten, and verified anew.
    """

    def __init__(self, most: int = MOST_TOKENS) -> None:
        self._most = most
        self._found: dict[str, VerifiedToken] = {}

    def __len__(self) -> int:
        return len(self._found)

    def find(self, digest: str, now: float) -> VerifiedToken | None:
        """What was found out about a token; None if it was not verified yet, or is no longer good."""
        found = self._found.get(digest)
        return found if found is not None and now < found.good_until else None

    def keep(self, digest: str, token: VerifiedToken) -> None:
        """Remember that a token was verified."""
        self._found.pop(digest, None)
        while len(self._found) >= self._most:
            del self._found[next(iter(self._found))]
        self._found[digest] = token
