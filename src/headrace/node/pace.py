"""How fast bytes come: over the last seconds, so that a stall shows and a beginning is forgotten."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 10.0


class Pace:
    """Bytes a second over the last `WINDOW_S`.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def bytes_per_s(self, done_bytes: int) -> float:
        """Take in how many have come by now; 0 before there are two moments to compare.

        What was there at the first call, such as what an earlier download left, does not count.
        """
        now = self._clock()
        self._seen.append((now, done_bytes))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()
        began, had_bytes = self._seen[0]
        return (done_bytes - had_bytes) / (now - began) if now > began else 0.0
