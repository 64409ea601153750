"""The budgets of all keys that have limits, kept while snapshots come and go, and passed on from gateway to gateway."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping

from headrace.gateway.allowance import KeyUse
from headrace.gateway.budget import Budget
from headrace.gateway.leases import Leases
from headrace.gateway.limit_notes import LimitNote, LimitNotes
from headrace.resources.limits import KeyLimits
from headrace.resources.snapshot import KeyRoute
from headrace.resources.work import NOTHING_SOLD

NOTE_AFTER_S = 1.0
"""How long a change may wait to be written down: what a gateway that is killed forgets."""

KEPT_FOR_S = 2.0
"""How long a gateway that hands over keeps a share for requests that are on their way to it. Connections that are kept
are closed after a second that brings nothing."""

LOOK_EVERY_S = 0.25
"""How often other gateways' notes are read, while there are any."""


class Budgets:
    """What each key with limits may use, and each deployed model that was sold a throughput.

    A gateway that drains gives no more away than what it told that it keeps. So what it has told at any time is all
    that the one in its place has to allow for, however late it reads more.

    Args:
        notes: Where gateways tell each other.
        clock: Seconds that never go back, the same for all processes of the machine.
        leases: What may be given away here, where several gateways share the limits; None: all of them.
    """

    def __init__(
        self, notes: LimitNotes, clock: Callable[[], float] = time.monotonic, leases: Leases | None = None
    ) -> None:
        self._notes = notes
        self._clock = clock
        self._leases = leases
        self._budgets: dict[str, Budget] = {}
        self._left_behind: dict[str, list[KeyUse]] = {}  # of keys that are not in the snapshot yet
        if leases is not None and leases.killed:
            self._take_over(notes.take(leases.killed))
        self._look_at = -math.inf
        self._noting: asyncio.TimerHandle | None = None
        self._handed_over_at: float | None = None
        self._over = False

    def follow(self, keys: Iterable[KeyRoute], sold: Mapping[str, KeyLimits] = NOTHING_SOLD) -> None:
        """Become what a newer snapshot says. A limit counts from when it is heard of.

        Args:
            keys: With their limits.
            sold: What deployed models were, by tenant (`headrace.resources.work`).
        """
        limited = {key.principal.key_id: key.limits for key in keys if key.limits.limited} | dict(sold)
        self._budgets = {key_id: budget for key_id, budget in self._budgets.items() if key_id in limited}
        for key_id, limits in limited.items():
            if key_id in self._budgets:
                self._budgets[key_id].follow(limits)
            else:
                self._budgets[key_id] = budget = Budget(limits, self._clock, self._changed, key_id=key_id)
                budget.leaving = self._handed_over_at is not None
                for use in self._left_behind.pop(key_id, ()):
                    budget.take_over(use)
        if self._leases is not None:
            if self._handed_over_at is None:
                self._look()  # what others in this place use is part of what is inherited from them
            self._leases.follow(self._budgets, self._look_again)

    def of(self, key_id: str) -> Budget | None:
        """The key's budget; None if it has no limits."""
        budget = self._budgets.get(key_id)
        if budget is not None:
            self._look_again()
        return budget

    def hand_over(self) -> None:
        """Leave what is free to a successor, which may start after this; again does nothing."""
        if self._handed_over_at is None:
            self._handed_over_at = self._clock()
            for budget in self._budgets.values():
                budget.hand_over()
        self.tell()
        if self._leases is not None:
            self._leases.hand_over()

    def tell(self, *, over: bool = False) -> None:
        """Write down what is used.

        Args:
            over: Whether that is the last word: what is reserved still is then taken for used.
        """
        self.close()
        if self._over:
            return
        self._over = over
        handed_over_at = self._handed_over_at
        if handed_over_at is not None and (over or self._clock() - handed_over_at >= KEPT_FOR_S):
            for budget in self._budgets.values():
                budget.let_go()
        used = {key_id: budget.use() for key_id, budget in self._budgets.items()}
        keys = {key_id: use for key_id, use in used.items() if use != KeyUse()}
        if keys:
            self._notes.write(LimitNote(keys=keys, over=over))
        else:
            self._notes.forget()

    def close(self) -> None:
        """Write nothing more by itself."""
        if self._noting is not None:
            self._noting.cancel()
            self._noting = None

    def _changed(self) -> None:
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(NOTE_AFTER_S, self.tell)

    def _look_again(self) -> None:
        if self._clock() >= self._look_at and self._handed_over_at is None:
            self._look()

    def _look(self) -> None:
        """Read what others told. Where none is left, none will come: only the gateway in this one's place could."""
        others = list(self._notes.others())
        for use, gone in others:
            if gone:
                self._take_over(use)
        there = [use for use, gone in others if not gone]
        for key_id, budget in self._budgets.items():
            budget.look_elsewhere([use[key_id] for use in there if key_id in use])
        self._look_at = self._clock() + LOOK_EVERY_S if there else math.inf

    def _take_over(self, uses: Mapping[str, KeyUse]) -> None:
        """Count as one's own what a gateway left that is gone."""
        for key_id, use in uses.items():
            if key_id in self._budgets:
                self._budgets[key_id].take_over(use)
            else:
                self._left_behind.setdefault(key_id, []).append(use)
