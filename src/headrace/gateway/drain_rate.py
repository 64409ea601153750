"""How fast a line gets shorter: what an honest ``Retry-After`` is computed from."""

from __future__ import annotations

from collections import deque

_REMEMBERED_DEPARTURES = 64


class DrainRate:
    """Departures a second since the line that stands now began to form, going by the last of them.

    What left before there was a line says how many came, not how many could have been served; so it does not count.
    """

    def __init__(self) -> None:
        self._departures: deque[float] = deque(maxlen=_REMEMBERED_DEPARTURES)
        self._since_s = 0.0
        self._before_per_s: float | None = None

    def begin(self, now_s: float) -> None:
        """A line begins to form."""
        self._before_per_s = self.per_s(now_s)
        self._departures.clear()
        self._since_s = now_s

    def departed(self, now_s: float) -> None:
        """Somebody left and made room for another."""
        self._departures.append(now_s)

    def per_s(self, now_s: float) -> float | None:
        """The rate; before the second departure that of the line before, or None if there was none."""
        count, since_s = len(self._departures), self._since_s
        if count < 2:
            return self._before_per_s
        if count == _REMEMBERED_DEPARTURES:
            count, since_s = count - 1, self._departures[0]
        return count / max(now_s - since_s, 1e-3)
