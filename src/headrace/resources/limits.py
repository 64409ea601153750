"""What a key may use in any minute, and what may be asked of an endpoint."""

from __future__ import annotations

import msgspec

MOST_PER_MINUTE = 10**15
"""Of a limit. More is no limit, and numbers that large stay exact wherever they go."""


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one key, over all models; None: no limit.

    Attributes:
        requests_per_minute: Inference requests.
        tokens_per_minute: Tokens of prompts and of answers, both counted.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def limited(self) -> bool:
        """Whether there is any."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None


class EndpointLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one endpoint; they hold besides those of the keys.

    Attributes:
        all_keys: What all keys together may use of it.
        each_key: What each key may use of it, where `of_keys` says nothing of that key.
        of_keys: The same for these keys, by id.
    """

    all_keys: KeyLimits = KeyLimits()
    each_key: KeyLimits = KeyLimits()
    of_keys: dict[str, KeyLimits] = {}

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return any(one.limited for one in (self.all_keys, self.each_key, *self.of_keys.values()))

    def of_key(self, key_id: str) -> KeyLimits:
        """What one key may use of it."""
        return self.of_keys.get(key_id, self.each_key)
