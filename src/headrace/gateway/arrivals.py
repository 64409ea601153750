"""How many requests came within the last minute."""

from __future__ import annotations

from collections import deque

MINUTE_S = 60.0

MARK_EVERY_S = 1.0
"""Marks are set when somebody asks, and no closer than this: a minute has sixty of them at most."""


class Arrivals:
    """Requests to one deployment. Counting one costs an addition; the minute is looked at by whoever asks.

    Attributes:
        count: All that ever came.
    """

    def __init__(self) -> None:
        self.count = 0
        self._marks: deque[tuple[float, int]] = deque()

    def per_minute(self, now: float) -> int:
        """How many came within the last 60 s; of a shorter time if this was not asked before, of no longer one.

        Args:
            now: Seconds that never go back.
        """
        marks = self._marks
        if not marks:
            marks.append((now, 0))  # what came before the first question is as if it had come with it
        while len(marks) > 1 and marks[1][0] <= now - MINUTE_S:
            marks.popleft()
        since, before = marks[0]
        came = self.count - before
        if now - since > MINUTE_S:
            came = round(came * MINUTE_S / (now - since))
        if now - marks[-1][0] >= MARK_EVERY_S:
            marks.append((now, self.count))
        return came
