"""How many requests of a pool may be sent a second time: so many that a crash is hidden, too few to make load worse."""

from __future__ import annotations

from collections.abc import Callable

SHARE = 0.1
"""Retries that each first try earns."""

FLOOR_PER_S = 10.0
"""Retries that every second brings, where there is little traffic."""


class RetryBudget:
    """A bucket of retries, full at first. One for each pool.

    It holds as many as one replica has requests at a time, so that all of them can move when it crashes. What goes on
    failing gets `SHARE` of the traffic and `FLOOR_PER_S`.

    Args:
        clock: Seconds that never go back.
        burst: What it holds at most.

    Attributes:
        spent: Retries so far.
    """

    __slots__ = ("_at", "_clock", "_left", "burst", "spent")

    def __init__(self, clock: Callable[[], float], burst: float) -> None:
        self._clock = clock
        self.burst = burst
        self._left = burst
        self._at = clock()
        self.spent = 0

    def earn(self) -> None:
        """A request is tried for the first time."""
        self._left = min(self._left + SHARE, self.burst)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * FLOOR_PER_S, self.burst)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        self.spent += 1
        return True
