"""The gateway of a simulated deployment: who is let in, and who goes next. `docs/admission.md` has the real rule.

Simpler than that: what an answer will cost is known when it is asked for, and the most that is let in is a bucket too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from headrace.capacity.simulation.kept import REMEMBERED_S, Kept
from headrace.capacity.simulation.load import Arrival, Tenant
from headrace.resources.profiles import Carried

WINDOW_S = 60.0
"""A minute's work may come at once of what is let in at most."""

DEPTH_S = 300.0
"""Of what is guaranteed, so many seconds' worth."""

LINE = 256
"""Requests that may wait for a deployment, beside guaranteed ones."""


class _Bucket:
    """Work that is filled at a rate."""

    __slots__ = ("_at", "_left", "_most", "_rate")

    def __init__(self, rate: float, depth_s: float) -> None:
        self._rate = rate
        self._left = self._most = rate * depth_s
        self._at = 0.0

    def take(self, units: float, now: float) -> bool:
        """Whether so much was there; then it is gone. What costs more than it holds goes by a full one."""
        most = self._most
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

    Attributes:
        waiting_units: Model units of the requests in line.
    """

    def __init__(self, tenants: Sequence[Tenant], carried: Carried) -> None:
        self._guarantees = [_Bucket(one.guaranteed, DEPTH_S) if one.guaranteed else None for one in tenants]
        self._mosts = [_Bucket(one.most, WINDOW_S) if one.most else None for one in tenants]
        self._carried = carried
        self._kept = Kept([one.guaranteed * carried.concurrency for one in tenants])
        self._sold = any(self._guarantees)
        self._guaranteed: deque[Arrival] = deque()
        self._lines: list[deque[Arrival]] = [deque() for _ in tenants]
        self._served = [0.0] * len(tenants)
        self._privileged: set[int] = set()
        self._waiting = self._others = 0
        self._virtual = self._read_at = 0.0
        self.waiting_units = self._turned_away = 0.0

    def turned_away(self) -> float:
        """Model units that had no place in line although the most had room for them, since this was asked last."""
        units, self._turned_away = self._turned_away, 0.0
        return units

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return self._waiting + len(self._guaranteed)

    def arrive(self, request: Arrival, now: float, replicas: int) -> bool:
        """Put it in its line, or refuse it; whether it begins at once, whoever holds the places."""
        who = request.tenant
        most = self._mosts[who]
        if most is not None and not most.take(request.units, now):
            request.refused = True
            return False
        guarantee = self._guarantees[who]
        if guarantee is not None and guarantee.take(request.units, now):
            self._privileged.add(id(request))
            if replicas and self._kept.is_free(who):
                self._begin(request, now, replicas)
                return True
            self._guaranteed.append(request)
            self.waiting_units += request.units
            return False
        if self._waiting >= LINE and not self._make_room(who):
            request.refused = True
            self._turned_away += request.units
            return False
        if not self._lines[who]:
            self._served[who] = max(self._served[who], self._virtual)
        self._lines[who].append(request)
        self._waiting += 1
        self.waiting_units += request.units
        return False

    def next(self, now: float, replicas: int, places: int) -> Arrival | None:
        """Who is let in next; None: nobody waits, or not yet.

        Args:
            now: The time.
            replicas: That are ready.
            places: Of all of them.
        """
        if self._guaranteed:
            request = self._guaranteed.popleft()
        elif self._waiting and self._others_fit(now, places):
            who = min((place for place, line in enumerate(self._lines) if line), key=lambda place: self._served[place])
            self._virtual = max(self._virtual, self._served[who])
            request = self._lines[who].popleft()
            self._served[who] += request.units
            self._waiting -= 1
        else:
            return None
        self.waiting_units = self.waiting_units - request.units if self.waiting else 0.0
        self._begin(request, now, replicas)
        return request

    def look_again_at(self, now: float) -> float:
        """When somebody may be let in although nobody has ended: prompts are read, or places are kept no more."""
        return self._read_at if self._read_at > now else now + REMEMBERED_S

    def over(self, request: Arrival, now: float) -> None:
        """A request has ended."""
        if id(request) in self._privileged:
            self._privileged.discard(id(request))
            self._kept.leave(request.tenant, now)
        else:
            self._others -= 1

    def _begin(self, request: Arrival, now: float, replicas: int) -> None:
        if self._sold:
            self._read_at = max(self._read_at, now) + self._carried.units(request.prompt_tokens, 0) / replicas
        if id(request) in self._privileged:
            self._kept.enter(request.tenant, now)
        else:
            self._others += 1

    def _others_fit(self, now: float, places: int) -> bool:
        """Whether one without a guarantee may begin: beside what is kept, and once the prompts before it are read."""
        if not self._sold:
            return True
        kept = self._kept.places(now)
        return self._others < places - kept and not (kept and self._read_at > now)

    def _make_room(self, who: int) -> bool:
        """Refuse who came last of those that hold most of the line, unless the newcomer is of them."""
        crowd = max(self._lines, key=len)
        if len(crowd) <= len(self._lines[who]) + 1:
            return False
        last = crowd.pop()
        last.refused = True
        self._waiting -= 1
        self.waiting_units -= last.units
        self._turned_away += last.units
        return True
