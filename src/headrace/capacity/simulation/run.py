"""The loop of events: requests come, replicas go on, and now and then somebody decides how many there are to be."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from headrace.capacity.autoscaling import History, Law, Reading, Standing, decide
from headrace.capacity.simulation.admission import Admission
from headrace.capacity.simulation.choice import Choice
from headrace.capacity.simulation.load import Arrival, Tenant, arrivals_of
from headrace.capacity.simulation.outcome import Outcome, told
from headrace.capacity.simulation.replica import STEP_TOKENS, Replica
from headrace.capacity.trend import Rate, with_rate, work_reading
from headrace.resources.autoscaling import Metric
from headrace.resources.profiles import Carried

LOOK_EVERY_S = 5.0
"""How often control decides."""

REST_S = 600.0
"""How long what is under way when nobody asks any more is followed."""

_EPOCH = 1_000_000.0  # to the law, zero is "never"


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas there are.

    Attributes:
        metric: What the autoscaler goes by between the two; None: `least` all the time.
        target: Of the metric, for one replica.
        start_s: From a replica's start until it is ready.
        law: How fast it goes.
        places: Requests that a replica has at a time; 0: as many as keep the profile's latencies, which is what it gets
            where throughput is sold.
        step_tokens: Of prompts and sequences that an engine computes in one step.
    """

    least: int
    most: int
    metric: Metric | None = None
    target: int = 0
    start_s: float = 10.0
    law: Law = Law()
    places: int = 0
    step_tokens: int = STEP_TOKENS


def simulate(tenants: Sequence[Tenant], carried: Carried, scale: Scale, *, seconds: float, seed: int = 1) -> Outcome:
    """Have tenants ask a deployment for so long, and follow what is under way to its end.

    Args:
        tenants: Who asks.
        carried: What a replica carries, with the latencies that are to be kept.
        scale: How many replicas there are.
        seconds: For how long.
        seed: Of what comes by chance; the same again is the same outcome.
    """
    return _Run(tenants, carried, scale, seconds, arrivals_of(tenants, seconds, seed)).outcome()


class _Run:
    """One simulation, played once."""

    def __init__(
        self, tenants: Sequence[Tenant], carried: Carried, scale: Scale, seconds: float, coming: Iterator[Arrival]
    ) -> None:
        self._tenants = tenants
        self._carried = carried
        self._scale = scale
        self._seconds = seconds
        self._coming = coming
        self._admission = Admission(tenants, carried)
        self._places = scale.places or carried.concurrency
        self._choice = Choice(self._places)
        self._replicas = [Replica(carried.cost, step_tokens=scale.step_tokens) for _ in range(scale.least)]
        self._ready = scale.least
        self._events: list[tuple[float, int, int, Replica | None]] = []
        self._look_at = 0.0
        self._asked: list[list[Arrival]] = [[] for _ in tenants]
        self._came: deque[tuple[float, float]] = deque()
        self._rates: tuple[Rate, ...] = ()
        self._under_way = 0
        self._most, self._changes = scale.least, 0
        self._replica_s = self._busy_s = 0.0
        self._standing, self._history = Standing(scale.least), History()
        self._number = 0
        for replica in self._replicas:
            replica.ready = True
            self._choice.offer(replica)

    def outcome(self) -> Outcome:
        """Play it to its end."""
        look_at = 0.0 if self._scale.metric is not None else math.inf
        request = next(self._coming, None)
        until = self._seconds + REST_S
        now = 0.0
        while request is not None or self._under_way or self._admission.waiting:
            arrives_at = request.at if request is not None else math.inf
            now = min(arrives_at, self._events[0][0] if self._events else math.inf, look_at)
            if now > until:
                now = until
                break
            if now == look_at:
                self._decide(now)
                look_at += LOOK_EVERY_S
            elif request is not None and now == arrives_at:
                self._arrive(request, now)
                request = next(self._coming, None)
            else:
                self._go_on(now)
        return self._told(max(now, self._seconds))

    def _arrive(self, request: Arrival, now: float) -> None:
        request.units = self._carried.units(request.prompt_tokens, request.output_tokens)
        self._asked[request.tenant].append(request)
        if self._scale.metric is Metric.REQUESTS:
            self._came.append((now, 1.0))
        if self._admission.arrive(request, now, self._ready):
            replica = self._choice.least(places=False)
            assert replica is not None
            self._begin(replica, request, now)
            return
        self._fill(now)

    def _go_on(self, now: float) -> None:
        at, version, _, replica = heapq.heappop(self._events)
        if replica is None:
            self._fill(now)
        elif version == replica.version and at == now:
            if not replica.ready and not replica.retired:  # this is the event that it is
                replica.ready = True
                self._ready += 1
                self._choice.offer(replica)
            self._ended(replica, replica.advance(now), now)
            self._schedule(replica)
            self._fill(now)

    def _fill(self, now: float) -> None:
        """Let in who waits, where there are places."""
        while self._admission.waiting:
            replica = self._choice.least(places=True)
            if replica is None:
                return
            request = self._admission.next(now, self._ready, self._places * self._ready)
            if request is None:
                self._look_later(now)
                return
            self._begin(replica, request, now)

    def _look_later(self, now: float) -> None:
        at = self._admission.look_again_at(now)
        if now < self._look_at <= at:
            return  # that is going to be done anyway
        self._look_at = at
        self._number += 1
        heapq.heappush(self._events, (at, 0, self._number, None))

    def _begin(self, replica: Replica, request: Arrival, now: float) -> None:
        self._under_way += 1
        if self._scale.metric is Metric.WORK:
            self._came.append((now, request.units))
        self._ended(replica, replica.take(request, now), now)
        self._schedule(replica)
        self._choice.offer(replica)

    def _ended(self, replica: Replica, ended: Sequence[Arrival], now: float) -> None:
        for one in ended:
            self._under_way -= 1
            self._admission.over(one, now)
        if ended and not replica.retired:
            self._choice.offer(replica)

    def _schedule(self, replica: Replica) -> None:
        at = replica.next_at()
        if at < math.inf:
            self._number += 1
            heapq.heappush(self._events, (at, replica.version, self._number, replica))

    def _decide(self, now: float) -> None:
        scale = self._scale
        assert scale.metric is not None
        reading = Reading(scale.metric, self._read(scale.metric, now), scale.target)
        decision = decide(
            scale.law, self._standing, self._history, [reading], bounds=(scale.least, scale.most), now=_EPOCH + now
        )
        self._standing, self._history = decision.standing, decision.history
        self._resize(self._standing.replicas, now)
        self._fill(now)

    def _read(self, metric: Metric, now: float) -> float:
        while self._came and self._came[0][0] < now - 60.0:
            self._came.popleft()
        if metric is Metric.REQUESTS:
            return float(len(self._came))
        if metric is Metric.WORK:
            self._came.append((now, self._admission.turned_away()))
            self._rates = with_rate(self._rates, Rate(_EPOCH + now, sum(units for _, units in self._came)))
            return work_reading(self._rates, self._admission.waiting_units).total
        if metric is Metric.WAITING:
            return float(self._admission.waiting)
        return float(self._under_way + self._admission.waiting)

    def _resize(self, wanted: int, now: float) -> None:
        """Start what is missing; let the youngest of what is too many take no more, and go when they are empty."""
        staying = [one for one in self._replicas if not one.retired]
        self._changes += wanted != len(staying)
        self._most = max(self._most, wanted)
        for one in staying[wanted:]:
            self._ready -= one.ready
            one.ready, one.retired = False, True
        for _ in range(wanted - len(staying)):
            ready_at = now + self._scale.start_s
            replica = Replica(self._carried.cost, ready_at, step_tokens=self._scale.step_tokens)
            self._replicas.append(replica)
            self._number += 1
            heapq.heappush(self._events, (replica.ready_at, replica.version, self._number, replica))
        for one in [each for each in self._replicas if each.retired and not each.outstanding]:
            self._replicas.remove(one)
            self._account(one, now)

    def _account(self, replica: Replica, now: float) -> None:
        self._replica_s += max(now - max(replica.ready_at - self._scale.start_s, 0.0), 0.0)
        self._busy_s += replica.busy_s

    def _told(self, now: float) -> Outcome:
        for replica in self._replicas:
            self._account(replica, now)
        first_s, gap_s = self._carried.first_s, self._carried.gap_s
        return Outcome(
            tenants=tuple(
                told(tenant, asked, self._seconds, first_s=first_s, gap_s=gap_s)
                for tenant, asked in zip(self._tenants, self._asked, strict=True)
            ),
            replica_hours=self._replica_s / 3600.0,
            utilisation=self._busy_s / self._replica_s if self._replica_s else 0.0,
            most_replicas=self._most,
            changes=self._changes,
            unfinished=self._under_way + self._admission.waiting,
        )
