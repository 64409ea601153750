"""The gateway of a simulated deployment: who is let in, and who goes next. `docs/admission.md` has the real rule.

Simpler than that: places are those of all replicas together, guaranteed requests begin at once up to a tenant's own
places (mean and three times its square root), and what an answer will cost is known when it arrives.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from headrace.capacity.simulation.load import Arrival, Tenant
from headrace.resources.profiles import Carried

WINDOW_S = 60.0
"""A minute's work may come at once: of what is guaranteed, and of what is let in at most."""

LINE = 256
"""Requests that may wait for a deployment, beside guaranteed ones."""


class _Bucket:
    """A minute's work that is filled at a rate."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = rate * WINDOW_S
        self._at = 0.0

    def take(self, units: float, now: float) -> bool:
        """Whether so much was there; then it is gone. What costs more than a minute's work goes by a full bucket."""
        most = self._rate * WINDOW_S
        self._left = min(most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < min(units, most):
            return False
        self._left -= units
        return True


class Admission:
    """Lines and counters.

    Args:
        tenants: Who may ask.
        carried: What a replica carries.
    """

    def __init__(self, tenants: Sequence[Tenant], carried: Carried) -> None:
        self._guarantees = [_Bucket(one.guaranteed) if one.guaranteed else None for one in tenants]
        self._mosts = [_Bucket(one.most) if one.most else None for one in tenants]
        means = [one.guaranteed * carried.concurrency for one in tenants]
        self._own_places = [math.ceil(mean + 3.0 * math.sqrt(mean)) if mean else 0 for mean in means]
        self._guaranteed: deque[Arrival] = deque()
        self._lines: list[deque[Arrival]] = [deque() for _ in tenants]
        self._served = [0.0] * len(tenants)
        self._own = [0] * len(tenants)
        self._privileged: set[int] = set()
        self._waiting = 0
        self._virtual = 0.0

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return self._waiting + len(self._guaranteed)

    def arrive(self, request: Arrival, now: float) -> bool:
        """Put it in its line, or refuse it; whether it begins at once, whoever holds the places."""
        who = request.tenant
        most = self._mosts[who]
        if most is not None and not most.take(request.units, now):
            request.refused = True
            return False
        guarantee = self._guarantees[who]
        if guarantee is not None and guarantee.take(request.units, now):
            self._privileged.add(id(request))
            if self._own[who] < self._own_places[who]:
                self._own[who] += 1
                return True
            self._guaranteed.append(request)
            return False
        line = self._lines[who]
        if self._waiting >= LINE:
            crowd = max(self._lines, key=len)
            if len(crowd) <= len(line) + 1:
                request.refused = True
                return False
            crowd.pop().refused = True  # who came last of those that hold most places makes room
            self._waiting -= 1
        if not line:
            self._served[who] = max(self._served[who], self._virtual)
        line.append(request)
        self._waiting += 1
        return False

    def next(self) -> Arrival | None:
        """Who is let in next; None: nobody waits."""
        if self._guaranteed:
            request = self._guaranteed.popleft()
            self._own[request.tenant] += 1
            return request
        if not self._waiting:
            return None
        who = min((place for place, line in enumerate(self._lines) if line), key=lambda place: self._served[place])
        self._virtual = max(self._virtual, self._served[who])
        request = self._lines[who].popleft()
        self._served[who] += request.units
        self._waiting -= 1
        return request

    def over(self, request: Arrival) -> None:
        """A request has ended."""
        if id(request) in self._privileged:
            self._privileged.discard(id(request))
            self._own[request.tenant] -= 1
