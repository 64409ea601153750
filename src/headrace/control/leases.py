"""The ledger of leases: how the limits of keys are split among gateways, so that nothing is given away twice.

Of each limit, all that gateways may hold is together at most the limit. Three rules hold it:

1. What a gateway is given counts as held there from then on, whether or not it ever hears of it.
2. It counts until the gateway in that place says that it holds less.
3. Nothing is given before every gateway has said what it holds.

So the ledger is kept in memory only: a control plane that starts anew hears everything from the gateways, which keep
theirs on disk. A gateway that is away keeps what it holds, for as long as it likes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from headrace.resources.endpoint_limits import EndpointLimitTable, is_of_each
from headrace.resources.leases import Lease, LeaseAnswer, LeaseReport, LeaseUse, LimitName, limits_by_name
from headrace.resources.limits import KeyLimits
from headrace.resources.snapshot import EndpointRoute, KeyRoute
from headrace.resources.work import NOTHING_SOLD

SMALLEST_SHARE = 16
"""A gateway that is not asked gets about this part of what another one is asked for: a sixteenth of the limit stands in
its weight, so that its first request need not wait. Smaller differences than that are not worth a message."""

GONE_AFTER_S = 2.0
"""A gateway that told nothing for as long gives nothing back that others should wait for."""


def split(limit: int, uses: Sequence[LeaseUse]) -> list[int]:
    """What each gateway should hold: together the limit, unless more is in use already.

    First what is in use, which nobody can give back; then what waiting requests need, the least first, so that as many
    as can be are helped; the rest goes to where most is used.
    """
    shares = [use.busy for use in uses]
    left = max(limit - sum(shares), 0)
    for place in sorted(range(len(uses)), key=lambda place: uses[place].wanted):
        extra = min(uses[place].wanted, left)
        shares[place] += extra
        left -= extra
    weights = [share + max(limit // SMALLEST_SHARE, 1) for share in shares]
    spare = [left * weight // sum(weights) for weight in weights]
    spare[0] += left - sum(spare)
    return [share + more for share, more in zip(shares, spare, strict=True)]


class LeaseLedger:
    """What each gateway may hold of each limit.

    Args:
        gateways: How many there are.
        clock: Seconds that never go back.

    Attributes:
        gateways: The same.
    """

    def __init__(self, gateways: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.gateways = gateways
        self._clock = clock
        self._limits: dict[LimitName, int] | None = None
        self._table = EndpointLimitTable()
        self._uses: dict[LimitName, list[LeaseUse]] = {}
        self._newest = [-1] * gateways
        self._heard_at = [0.0] * gateways
        self._to_tell: list[set[LimitName]] = [set() for _ in range(gateways)]

    def follow(
        self,
        keys: Iterable[KeyRoute],
        sold: Mapping[str, KeyLimits] = NOTHING_SOLD,
        *,
        endpoints: Iterable[EndpointRoute] = (),
    ) -> None:
        """Split these keys' limits from now on, what deployed models were sold, and these endpoints' limits."""
        of_each = {name: self._limit_of_each(name) for name in self._uses if is_of_each(name[0])}
        before = self._limits or {}
        self._table = EndpointLimitTable(endpoints)
        named = {key.principal.key_id: key.limits for key in keys} | self._table.of_all | dict(sold)
        limits = dict(each for name, its in named.items() for each in limits_by_name(name, its))
        changed = {name for name in limits.keys() | before.keys() if limits.get(name) != before.get(name)}
        changed |= {name for name, limit in of_each.items() if limit != self._limit_of_each(name)}
        for names in self._to_tell:
            names.update(changed)
        self._limits = limits
        # What a gateway holds of a limit that is gone counts until it says that it does not: the limit may come back.
        self._uses = {
            name: uses for name, uses in self._uses.items() if name in limits or any(use.held for use in uses)
        }

    def report(self, gateway: int, report: LeaseReport) -> LeaseAnswer:
        """Take in what a gateway tells; returns what it should hold.

        Args:
            gateway: Its number, from 0.
            report: One that was overtaken by a newer one changes nothing.
        """
        if report.number < self._newest[gateway]:
            return LeaseAnswer()
        limits, known = self._limits, self._newest[gateway] >= 0
        if limits is None or not (known or report.whole):
            return LeaseAnswer(again=True)
        self._newest[gateway], self._heard_at[gateway] = report.number, self._clock()
        if not known:
            for names in self._to_tell:  # it may be the last one that the others waited for
                names.update(limits)
        told = {use.name: use for use in report.uses}
        if report.whole:
            told = {name: LeaseUse(*name) for name in self._uses} | told
            self._to_tell[gateway] |= limits.keys()
        for name, use in told.items():
            self._enter(gateway, name, use)
        names, self._to_tell[gateway] = self._to_tell[gateway] | told.keys(), set()
        asked = ((name, self._limit(gateway, name)) for name in names)
        leases = [self._lease(gateway, name, limit) for name, limit in asked if limit is not None]
        for name in told:
            self._forget_unused(name)
        return LeaseAnswer(leases=tuple(lease for lease in leases if lease is not None))

    def held(self, name: LimitName) -> list[LeaseUse]:
        """What each gateway may hold of a limit."""
        return list(self._uses_of(name))

    def _limit(self, gateway: int, name: LimitName) -> int | None:
        """A limit, as far as it is a gateway's business: one of each key only while that gateway has any of it."""
        if not is_of_each(name[0]):
            return (self._limits or {}).get(name)
        uses = self._uses.get(name)
        return None if uses is None or uses[gateway] == LeaseUse(*name) else self._limit_of_each(name)

    def _limit_of_each(self, name: LimitName) -> int | None:
        return dict(limits_by_name(name[0], self._table.of_each(name[0]))).get(name)

    def _forget_unused(self, name: LimitName) -> None:
        """Leave out what one key may use of one endpoint while no gateway has any of it."""
        if is_of_each(name[0]) and all(use == LeaseUse(*name) for use in self._uses.get(name, ())):
            self._uses.pop(name, None)

    def _uses_of(self, name: LimitName) -> list[LeaseUse]:
        if name not in self._uses:
            self._uses[name] = [LeaseUse(*name)] * self.gateways
        return self._uses[name]

    def _enter(self, gateway: int, name: LimitName, use: LeaseUse) -> None:
        """Note what a gateway said, which may change what the others should hold."""
        uses = self._uses_of(name)
        if uses[gateway] != use:
            uses[gateway] = use
            for number, names in enumerate(self._to_tell):
                if number != gateway:
                    names.add(name)

    def _lease(self, gateway: int, name: LimitName, limit: int) -> Lease | None:
        """What a gateway should hold of a limit; None if that is what it holds, and it does not wait for more."""
        uses = self._uses_of(name)
        mine, shares = uses[gateway], split(limit, uses)
        everyone = min(self._newest) >= 0
        free = limit - sum(use.held for use in uses)
        amount = min(shares[gateway], mine.held + (max(free, 0) if everyone else 0))
        urgent = free < 0 or not mine.held or any(use.wanted for use in uses)
        if not urgent and abs(amount - mine.held) <= limit // SMALLEST_SHARE:
            amount = mine.held
        coming = amount < shares[gateway] and (not everyone or self._comes_back(uses, shares))
        if amount > mine.held:
            uses[gateway] = msgspec.structs.replace(mine, held=amount)
        if amount == mine.held and not mine.wanted:
            return None
        return Lease(*name, amount, coming)

    def _comes_back(self, uses: Sequence[LeaseUse], shares: Sequence[int]) -> bool:
        """Whether a gateway that was heard lately holds more than it should."""
        lately = self._clock() - GONE_AFTER_S
        return any(
            use.held > share and heard_at > lately
            for use, share, heard_at in zip(uses, shares, self._heard_at, strict=True)
        )
