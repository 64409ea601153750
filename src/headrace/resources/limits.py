"""What a key may use in any minute."""

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
