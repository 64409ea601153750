"""One replica that batches continuously, by the fitted cost: what it does until when, without time steps.

A step of ``k`` sequences takes ``step + k·sequence + context·(tokens in their caches)`` seconds and gives each a token,
so one number, how many tokens each has got so far (the pace), tells when which one ends. Prompts are read one at a
time, first come first served: with half of the time while there is somebody to write for, with all of it else.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from headrace.capacity.simulation.load import Arrival
from headrace.resources.profiles import Cost

READING_SHARE = 0.5
"""Of its time, what reading gets while sequences are written for; that is near to what chunked prefill gives it."""

_ROUNDING_S = 1e-9


class Replica:
    """Takes requests, and tells when its next event is.

    Args:
        cost: Of its requests.
        ready_at: When it begins to compute.

    Attributes:
        work: Model units of what it has and has not done, as they were when it came.
        busy_s: For how long it computed.
        version: Grows with every change of what its next event is.
        ready: Whether it takes requests.
        retired: Whether it takes no more.
    """

    __slots__ = (
        "_at", "_cached", "_cost", "_ends", "_number", "_pace", "_reading", "_unread_s",
        "busy_s", "ready", "ready_at", "retired", "version", "work",
    )  # fmt: skip

    def __init__(self, cost: Cost, ready_at: float = 0.0) -> None:
        self._cost = cost
        self._at = ready_at
        self._ends: list[tuple[float, int, Arrival]] = []
        self._reading: deque[Arrival] = deque()
        self._unread_s = 0.0
        self._pace = 0.0
        self._cached = 0.0
        self._number = 0
        self.ready_at = ready_at
        self.work = self.busy_s = 0.0
        self.version = 0
        self.ready = self.retired = False

    @property
    def outstanding(self) -> int:
        """Requests that it has."""
        return len(self._ends) + len(self._reading)

    def take(self, request: Arrival, now: float) -> list[Arrival]:
        """One more; returns those that ended until now."""
        ended = self.advance(now)
        self.work += request.units
        self._reading.append(request)
        if len(self._reading) == 1:
            self._unread_s = self._prompt_s(request)
        self.version += 1
        return ended

    def next_at(self) -> float:
        """When something changes by itself; infinite when nothing does."""
        return self._at + self._next_s()

    def advance(self, now: float) -> list[Arrival]:
        """Compute until now; returns what ended, in order."""
        ended: list[Arrival] = []
        while self._at < now:
            ahead = min(self._next_s(), now - self._at)
            self._compute(ahead)
            self._at = now if now - self._at <= ahead else self._at + ahead
            self._settle(ended)
        self._settle(ended)  # what takes no time has ended too
        return ended

    def _compute(self, seconds: float) -> None:
        reads, writes = bool(self._reading), bool(self._ends)
        if not seconds or not (reads or writes):
            return
        self.busy_s += seconds
        if reads:
            self._unread_s -= seconds * (READING_SHARE if writes else 1.0)
        if writes:
            tokens = seconds * (1.0 - READING_SHARE if reads else 1.0) / self._step_s()
            self._pace += tokens
            self._cached += tokens * len(self._ends)

    def _settle(self, ended: list[Arrival]) -> None:
        """What is read begins to be written, with its first token; what is written ends.

        Whatever has less time left than the clock can tell is over: an event must not come again at the same time.
        """
        least_s = max(_ROUNDING_S, 4.0 * math.ulp(self._at))
        while self._reading and self._unread_s <= least_s:
            request = self._reading.popleft()
            request.first_s = self._at - request.at
            self._cached += request.prompt_tokens
            self._number += 1
            heapq.heappush(self._ends, (self._pace + request.output_tokens, self._number, request))
            self._unread_s = self._prompt_s(self._reading[0]) if self._reading else 0.0
            self.version += 1
        while self._ends and (self._ends[0][0] - self._pace) * self._step_s() <= least_s:
            request = heapq.heappop(self._ends)[2]
            request.wall_s = self._at - request.at
            self._cached -= request.prompt_tokens + request.output_tokens
            self.work -= request.units
            self.version += 1
            ended.append(request)
        if not self._ends:
            self._cached = self._pace = 0.0

    def _next_s(self) -> float:
        reads, writes = bool(self._reading), bool(self._ends)
        read_s = self._unread_s / (READING_SHARE if writes else 1.0) if reads else math.inf
        if not writes:
            return max(read_s, 0.0)
        share = 1.0 - READING_SHARE if reads else 1.0
        return max(min(read_s, (self._ends[0][0] - self._pace) * self._step_s() / share), 0.0)

    def _step_s(self) -> float:
        cost, many = self._cost, len(self._ends)
        return cost.step + many * cost.sequence + cost.context * max(self._cached, 0.0)

    def _prompt_s(self, request: Arrival) -> float:
        tokens = request.prompt_tokens
        return self._cost.prompt * tokens + self._cost.prompt_squared * tokens**2
