"""What of one limit was used in the last minute, what is reserved, and so what is left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

WINDOW_S = 60.0
CELL_S = 1.0
"""Amounts of one second are counted together until the last of them is a whole window old: never too little is
counted, by up to this time too long, and a key takes no more than 61 numbers however much it asks."""

AT_LEAST_S = 1.0
"""The earliest that anybody is told to come back, where that depends on when a request under way ends."""

Cells = Mapping[int, int]
"""Amounts by second: of the machine's monotonic clock, which all of its processes share."""


class KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway counts of a key, as it tells another.

    Attributes:
        requests: That arrived, by second.
        tokens: That were charged, by second.
        requests_reserved: Kept for requests that may still come.
        tokens_reserved: Reserved by requests under way, or kept for those that may still come.
    """

    requests: dict[int, int] = {}
    tokens: dict[int, int] = {}
    requests_reserved: int = 0
    tokens_reserved: int = 0


class Log:
    """Amounts of the last 60 s, by second."""

    __slots__ = ("_cells", "total")

    def __init__(self) -> None:
        self._cells: dict[int, int] = {}
        self.total = 0

    @property
    def cells(self) -> dict[int, int]:
        """The amounts, oldest first."""
        return dict(self._cells)

    def add(self, amount: int, now: float) -> None:
        """Note an amount of this moment."""
        cell = math.floor(now / CELL_S)
        self._cells[cell] = self._cells.get(cell, 0) + amount
        self.total += amount

    def correct(self, more: int, at: float) -> None:
        """Count more, or less, of what was noted at an earlier moment; nothing if that is forgotten."""
        cell = math.floor(at / CELL_S)
        if cell in self._cells:
            self._cells[cell] += more
            self.total += more

    def take(self, cells: Cells, now: float) -> None:
        """Add what somebody else noted. What is of a later moment than now is of another run of the machine."""
        for cell, amount in cells.items():
            if cell * CELL_S <= now:
                self._cells[cell] = self._cells.get(cell, 0) + amount
                self.total += amount
        self._cells = dict(sorted(self._cells.items()))
        self.forget(now)

    def forget(self, now: float) -> None:
        """Leave out what is a window old."""
        while self._cells:
            cell = next(iter(self._cells))
            if _leaves_at(cell) > now:
                return
            self.total -= self._cells.pop(cell)

    def leaving(self) -> Iterable[tuple[float, int]]:
        """When each amount will be a window old."""
        return ((_leaves_at(cell), amount) for cell, amount in self._cells.items())


def _leaves_at(cell: int) -> float:
    return (cell + 1) * CELL_S + WINDOW_S


class Allowance:
    """One limit of one key.

    Attributes:
        limit: How much in any 60 s; None: no limit.
        lease: How much of that may be given away here, where several gateways share the limit; None where none does.
        log: What was used.
        reserved: What requests under way may use.
        kept: All that may still be given away here, where another gateway has the rest.
        log_elsewhere: What was used at other gateways.
        reserved_elsewhere: What requests under way there may use.
    """

    __slots__ = ("kept", "lease", "limit", "log", "log_elsewhere", "reserved", "reserved_elsewhere")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.lease: int | None = None
        self.log, self.log_elsewhere = Log(), Log()
        self.reserved = self.reserved_elsewhere = self.kept = 0

    @property
    def used(self) -> int:
        """In the last 60 s, anywhere."""
        return self.log.total + self.log_elsewhere.total

    @property
    def held(self) -> int:
        """Reserved anywhere."""
        return self.reserved + self.reserved_elsewhere

    @property
    def busy(self) -> int:
        """Used or reserved."""
        return self.used + self.held

    @property
    def room(self) -> int:
        """All that may be given away here in any 60 s; 0 without a limit."""
        limit = self.limit or 0
        return limit if self.lease is None else min(limit, self.lease)

    @property
    def free(self) -> int:
        """What is left of it here; 0 without a limit."""
        return max(self.room - self.busy, 0)

    def forget(self, now: float) -> None:
        """Leave out what is a window old."""
        self.log.forget(now)
        self.log_elsewhere.forget(now)

    def has_room(self, need: int) -> bool:
        """Whether so much fits."""
        return self.limit is None or self.busy + need <= self.room

    def fits_in_s(self, need: int, now: float) -> float:
        """When so much fits, if nobody uses any more.

        Where that takes what requests under way have reserved, the earliest that it may be: should they use nothing.
        So too where it takes what other gateways hold: as if they gave it back.

        Args:
            need: At most the limit.
            now: By the clock.
        """
        held = self.held if self.held + need <= self.room else 0
        over, fits_at = self.used + held + need - self.room, now
        for leaves_at, amount in sorted((*self.log.leaving(), *self.log_elsewhere.leaving())):
            if over <= 0:
                break
            over -= amount
            fits_at = leaves_at
        return max(fits_at - now, AT_LEAST_S)

    def resets_in_s(self, now: float) -> float:
        """When nothing will be used of it, if nobody uses any more and what is under way ends now."""
        if self.held:
            return WINDOW_S + CELL_S
        latest = max((at for at, _ in (*self.log.leaving(), *self.log_elsewhere.leaving())), default=now)
        return latest - now

    def fill(self, amount: int, now: float) -> None:
        """Count so much as used by now, if not more is: whoever might have used it is gone and did not say."""
        if amount > self.busy:
            self.log.add(amount - self.busy, now)
