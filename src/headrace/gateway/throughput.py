"""The throughput that one deployed model was sold: what its requests claim of it, and what they used.

Two promises. The work of requests under way and of those that ended within the last 60 s is at most `most` times 60 s
when a request is let through: each claims what it is expected to be, and is charged what it was. And what is within
the guaranteed rate is told so (`Claim.guaranteed`), whatever the deployed model's other requests do.

A claim is the expectation and not the longest answer that the request allows: clients give `max_tokens` many times as
long as their answers are, and a tenant would be refused at a fraction of what it bought. So above the limit may be what
the requests under way at one moment turn out to be beyond what was expected of them; it is charged, and what comes
later waits for it. A request that is more than a whole minute's worth goes through when nothing else is counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

from headrace.gateway.allowance import WINDOW_S, Log
from headrace.gateway.budget import Budget, Reservation
from headrace.gateway.expectation import Expectation
from headrace.gateway.guarantee import Guarantee
from headrace.resources.errors import KeyLimitReached, ThroughputExceeded
from headrace.resources.snapshot import ProvisionRoute
from headrace.resources.work import MICROS, MINUTE_S, micros


class Throughput:
    """One deployed model's. Work is in millionths of a model unit.

    Args:
        tenant: Its name (`headrace.resources.work.tenant_of`).
        clock: Seconds that never go back.

    Attributes:
        tenant: The same.
        deployment_id: What answers.
        endpoint_id: For whom.
        deployed_id: The deployed model.
        expectation: What its requests come to.
        waiting: Work of requests that wait for a turn.
        used: All that was ever charged; of requests within the guarantee, and of others.
        refused: Requests that were.
    """

    def __init__(
        self, tenant: str, provision: ProvisionRoute, clock: Callable[[], float] = time.monotonic, *, name: str = ""
    ) -> None:
        self._clock = clock
        self._guarantee = Guarantee(0.0, clock())
        self._admitted, self._turned_away = Log(), Log()
        self.tenant = tenant
        self.name = name or tenant
        self.deployment_id = self.endpoint_id = self.deployed_id = ""
        self.expectation = Expectation()
        self.waiting = self.refused = 0
        self.used = {True: 0, False: 0}
        self.follow(provision)

    def follow(self, provision: ProvisionRoute) -> None:
        """Take what a newer snapshot says. What was used of the old one counts; what is under way goes on."""
        self.provision = provision
        self._guarantee.per_s = provision.guaranteed * MICROS

    @property
    def limit(self) -> int:
        """Of any 60 s."""
        return max(micros(self.provision.most * MINUTE_S), 1)

    def per_minute(self) -> int:
        """What came within the last minute, as far as it was sold.

        That is what was let in to an engine, by what it used or is expected to; and what the most had room for and was
        sent away from the line. Without the latter a pool that does less than its profile says would never become more:
        it lets in what it gets done. Who tries again and again counts each time, but never beyond the most.
        """
        now = self._clock()
        self._admitted.forget(now)
        self._turned_away.forget(now)
        left = max(self.limit - self._admitted.total, 0)
        return self._admitted.total + min(self._turned_away.total, left)

    async def claim(self, budget: Budget, work: int, *, batch: bool = False) -> Claim:
        """Let a request through, and set aside what it is expected to cost.

        Args:
            budget: Where the limit is counted (`headrace.gateway.budgets`).
            work: Expected.
            batch: Whether it says that it may take longer: then the guarantee is left to others.

        Raises:
            ThroughputExceeded: It does not fit now.
            Draining: Another gateway knows.
        """
        need = min(work, budget.tokens.limit or work)
        try:
            reservation = await budget.when_it_fits(need, partial(budget.reserve, need))
        except KeyLimitReached as error:
            self.refused += 1
            raise _exceeded(self, budget, work, error.retry_after_s) from None
        share = budget.tokens.room / budget.tokens.limit if budget.tokens.limit else 1.0
        guaranteed = not batch and self._guarantee.take(work, self._clock(), share=share)
        return Claim(self, reservation, work, guaranteed=guaranteed)

    def begin(self, work: int) -> float:
        """A request was let in to an engine; returns when."""
        now = self._clock()
        self._admitted.forget(now)
        self._admitted.add(work, now)
        return now

    def end(self, used: int, expected: int, *, guaranteed: bool, began: float | None) -> None:
        """A request is over: put what it used in the place of what was expected."""
        self.used[guaranteed] += used
        if guaranteed:
            self._guarantee.correct(used - expected)
        if began is not None:
            self._admitted.forget(self._clock())
            self._admitted.correct(used - expected, began)

    def turn_away(self, work: int) -> None:
        """The line had no place for a request, or its turn did not come."""
        now = self._clock()
        self._turned_away.forget(now)
        self._turned_away.add(work, now)


class Claim:
    """What is set aside for one request.

    Args:
        throughput: Of whose.
        reservation: Of the limit.
        work: Expected.
        guaranteed: Whether it is within the guarantee, and so goes before all others.

    Attributes:
        prompts: How many each request to an engine has.
        answers: How many are made to each.
    """

    __slots__ = (
        "_began",
        "_charged",
        "_reservation",
        "_settled",
        "answers",
        "guaranteed",
        "prompts",
        "throughput",
        "work",
    )

    def __init__(self, throughput: Throughput, reservation: Reservation, work: int, *, guaranteed: bool) -> None:
        self.throughput = throughput
        self.guaranteed = guaranteed
        self.work = work
        self.prompts = self.answers = 1
        self._reservation = reservation
        self._began: float | None = None
        self._charged = 0
        self._settled = False
        throughput.waiting += work

    def begin(self) -> None:
        """It is let in to an engine; only the first time counts."""
        if self._began is None and not self._settled:
            self.throughput.waiting -= self.work
            self._began = self.throughput.begin(self.work)

    def charge(self, work: int) -> None:
        """An engine told that it used so much, besides what was told before."""
        self._charged += work

    def settle(self, *, exact: bool, turned_away: bool = False) -> None:
        """It is over; only the first time counts.

        Args:
            exact: Whether engines told all that they did for it. Else it is at least what was expected.
            turned_away: Whether it was sent away from the line.
        """
        if self._settled:
            return
        self._settled = True
        if self._began is None:
            self.throughput.waiting -= self.work
            if turned_away:
                self.throughput.turn_away(self.work)
        used = self._charged if exact else max(self._charged, self.work)
        self._reservation.settle(used)
        self.throughput.end(used, self.work, guaranteed=self.guaranteed, began=self._began)


def _exceeded(throughput: Throughput, budget: Budget, work: int, retry_after_s: float | None) -> ThroughputExceeded:
    allowance = budget.tokens
    share = "" if allowance.lease is None else f"{_units(allowance.room)} of them are this gateway's: "
    when = "" if retry_after_s is None else f" It fits in {math.ceil(retry_after_s)} s, at the earliest."
    return ThroughputExceeded(
        f"{throughput.name} has used the throughput that it was sold: {_units(throughput.limit)} model units a minute.",
        evidence=f"{share}{_units(allowance.used)} were used in the last {WINDOW_S:.0f} s, and "
        f"{_units(allowance.held)} are reserved by requests under way. This one needs about {_units(work)}.{when}",
        fix="Try again then, or raise the maximum throughput of the endpoint.",
        retry_after_s=retry_after_s,
    )


def _units(work: int) -> str:
    return f"{work / MICROS:,.3g}"
