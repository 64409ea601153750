"""The budgets of all keys that have limits, kept while snapshots come and go, and passed on from gateway to gateway."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import overload

from headrace.gateway.allowance import KeyUse
from headrace.gateway.budget import Budget
from headrace.gateway.joint_budget import AnyBudget, JointBudget
from headrace.gateway.leases import Leases
from headrace.gateway.limit_notes import LimitNote, LimitNotes
from headrace.resources.endpoint_limits import EndpointLimitTable, budget_of_all, budget_of_each, is_of_each
from headrace.resources.limits import KeyLimits
from headrace.resources.snapshot import EndpointRoute, KeyRoute
from headrace.resources.work import NOTHING_SOLD

NOTE_AFTER_S = 1.0
"""How long a change may wait to be written down: what a gateway that is killed forgets."""

KEPT_FOR_S = 2.0
"""How long a gateway that hands over keeps a share for requests that are on their way to it. Connections that are kept
are closed after a second that brings nothing."""

LOOK_EVERY_S = 0.25
"""How often other gateways' notes are read, while there are any."""

FORGOTTEN_AFTER_S = 600.0
"""How long nobody must have asked for what one key may use of one endpoint: longer than any request waits before it is
counted."""

KEPT_BUDGETS = 1024
"""So many budgets are there before any is forgotten; then those that are idle, each time their number has doubled."""


class Budgets:
    """What each key with limits may use, what may be asked of each endpoint, and what each deployed model was sold.

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
        self._table = EndpointLimitTable()
        self._asked_at: dict[str, float] = {}  # of budgets that one key has at one endpoint
        self._forget_from = KEPT_BUDGETS
        self._left_behind: dict[str, list[KeyUse]] = {}  # of keys that are not in the snapshot yet
        if leases is not None and leases.killed:
            self._take_over(notes.take(leases.killed))
        self._look_at = -math.inf
        self._noting: asyncio.TimerHandle | None = None
        self._handed_over_at: float | None = None
        self._over = False

    def follow(
        self,
        keys: Iterable[KeyRoute],
        sold: Mapping[str, KeyLimits] = NOTHING_SOLD,
        *,
        endpoints: Iterable[EndpointRoute] = (),
    ) -> None:
        """Become what a newer snapshot says. A limit counts from when it is heard of.

        Args:
            keys: With their limits.
            sold: What deployed models were, by tenant (`headrace.resources.work`).
            endpoints: With their limits.
        """
        self._table = EndpointLimitTable(endpoints)
        limited = {key.principal.key_id: key.limits for key in keys if key.limits.limited} | self._table.of_all
        there = {*self._budgets, *self._left_behind, *(() if self._leases is None else self._leases.inherited)}
        of_each = {name: self._table.of_each(name) for name in there if is_of_each(name)}
        limited |= {name: limits for name, limits in of_each.items() if limits.limited} | dict(sold)
        self._budgets = {key_id: budget for key_id, budget in self._budgets.items() if key_id in limited}
        for key_id, limits in limited.items():
            if key_id in self._budgets:
                self._budgets[key_id].follow(limits)
            else:
                self._add(key_id, limits)
        if self._leases is not None:
            if self._handed_over_at is None:
                self._look()  # what others in this place use is part of what is inherited from them
            self._leases.follow(self._budgets, self._look_again)

    @overload
    def of(self, key_id: str) -> Budget | None: ...

    @overload
    def of(self, key_id: str, endpoint: EndpointRoute) -> AnyBudget | None: ...

    def of(self, key_id: str, endpoint: EndpointRoute | None = None) -> AnyBudget | None:
        """What a request needs room in; None if nothing limits it.

        Args:
            key_id: Whose request it is.
            endpoint: Which one it asks.
        """
        names = [key_id]
        if endpoint is not None and endpoint.limits is not None:
            names += [budget_of_all(endpoint), budget_of_each(endpoint, key_id)]
        found = [budget for name in names if (budget := self._named(name)) is not None]
        if not found:
            return None
        self._look_again()
        return found[0] if len(found) == 1 else JointBudget(found)

    def _named(self, name: str) -> Budget | None:
        budget = self._budgets.get(name)
        if not is_of_each(name):
            return budget
        if budget is None and (limits := self._table.of_each(name)).limited:
            self._forget_idle()
            budget = self._add(name, limits)
            if self._look_at < math.inf and self._handed_over_at is None:
                self._look()
            if self._leases is not None:
                self._leases.add(name, budget)
        if budget is not None:
            self._asked_at[name] = self._clock()
        return budget

    def _add(self, name: str, limits: KeyLimits) -> Budget:
        self._budgets[name] = budget = Budget(limits, self._clock, self._changed, key_id=name)
        budget.leaving = self._handed_over_at is not None
        for use in self._left_behind.pop(name, ()):
            budget.take_over(use)
        return budget

    def _forget_idle(self) -> None:
        """Forget keys' budgets at endpoints that nobody has asked for a while and of which nothing is used."""
        if len(self._budgets) < self._forget_from:
            return
        long_ago = self._clock() - FORGOTTEN_AFTER_S
        quiet = [name for name in self._budgets if is_of_each(name) and self._asked_at.get(name, 0.0) < long_ago]
        forgotten = [name for name in quiet if self._budgets[name].idle]
        for name in forgotten:
            del self._budgets[name]
            self._asked_at.pop(name, None)
        if self._leases is not None:
            self._leases.forget(forgotten)
        self._forget_from = max(KEPT_BUDGETS, 2 * len(self._budgets))

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
