"""Places that a simulated gateway keeps for tenants with a guarantee, as `headrace.gateway.kept_places` keeps them."""

from __future__ import annotations

import math
from collections.abc import Sequence

SPREAD = 5.0
"""Square roots of the average above it that a tenant may run at once, whoever else runs."""

REMEMBERED_S = 5.0
"""For how long a tenant's places are kept after it had them, at least; at most for twice as long."""

_ROUNDING = 1e-9


class Kept:
    """Who runs of each tenant, and how many places are kept for all.

    Args:
        means: Requests that each tenant runs on average if it uses all of its guarantee.
    """

    def __init__(self, means: Sequence[float]) -> None:
        self._means = means
        self._own = [math.ceil(mean + SPREAD * math.sqrt(mean)) if mean else 0 for mean in means]
        self._running = [0] * len(means)
        self._lately = [0] * len(means)
        self._before = [0] * len(means)
        self._kept = 0.0
        self._turned_at = 0.0

    def is_free(self, who: int) -> bool:
        """Whether one more request of a tenant may begin although no place is free."""
        return self._running[who] < self._own[who]

    def enter(self, who: int, now: float) -> None:
        """A guaranteed request begins."""
        self._turn(now)
        self._running[who] += 1
        if self._running[who] > self._lately[who]:
            before = self._of(who)
            self._lately[who] = self._running[who]
            self._kept += self._of(who) - before

    def leave(self, who: int, now: float) -> None:
        """It is over."""
        self._turn(now)
        self._running[who] -= 1

    def places(self, now: float) -> int:
        """What others may not have now, taken or not."""
        self._turn(now)
        return math.ceil(self._kept - _ROUNDING)

    def _of(self, who: int) -> float:
        """One place more than it had lately, so that it finds one."""
        most = max(self._lately[who], self._before[who])
        return min(self._means[who], most + 1.0) if most else 0.0

    def _turn(self, now: float) -> None:
        passed = now - self._turned_at
        if passed < REMEMBERED_S:
            return
        self._before = self._lately if passed < 2 * REMEMBERED_S else list(self._running)
        self._lately = list(self._running)
        self._kept = sum(map(self._of, range(len(self._means))))
        self._turned_at = now
