"""One replica that batches continuously, by the fitted cost: what it does until when.

A step of ``k`` sequences takes ``step + k·sequence + context·(tokens in their caches)`` seconds and gives each a token,
so while nothing is read one number, how many tokens each has got so far (the pace), tells when which one ends, and no
step is looked at. Prompts are read in steps, first come first served, as many tokens of them as a step has place for
beside its sequences. Such a step takes longer by what they cost, and who comes during a step waits for its end.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from headrace.capacity.simulation.load import Arrival
from headrace.resources.profiles import Cost

STEP_TOKENS = 192
"""Of prompts and sequences, in one step: what openvino computes here (`headrace_engines.openvino.loading`)."""

_ROUNDING_S = 1e-9


class Replica:
    """Takes requests, and tells when its next event is.

    Args:
        cost: Of its requests.
        ready_at: When it begins to compute.
        step_tokens: Of prompts and sequences, in one step.

    Attributes:
        work: Model units of what it has and has not done, as they were when it came.
        busy_s: For how long it computed.
        version: Grows with every change of what its next event is.
        ready: Whether it takes requests.
        retired: Whether it takes no more.
    """

    __slots__ = (
        "_at", "_cached", "_cost", "_ends", "_number", "_pace", "_read_tokens", "_reading", "_step_ends", "_step_reads",
        "_step_tokens", "busy_s", "ready", "ready_at", "retired", "version", "work",
    )  # fmt: skip

    def __init__(self, cost: Cost, ready_at: float = 0.0, *, step_tokens: int = STEP_TOKENS) -> None:
        self._cost = cost
        self._at = ready_at
        self._step_tokens = step_tokens
        self._ends: list[tuple[float, int, Arrival]] = []
        self._reading: deque[Arrival] = deque()
        self._read_tokens = 0  # of the first of these that no step has read to its end
        self._step_ends = math.inf  # of a step that reads
        self._step_reads = 0  # prompts that are read to their ends in it
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
        self._begin_step()
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
            if self._ends or self._reading:
                self.busy_s += ahead
            if self._ends and self._step_ends == math.inf:
                self._write(ahead / self._step_s(len(self._ends)))
            self._at = now if now - self._at <= ahead else self._at + ahead
            self._settle(ended)
        self._settle(ended)  # what takes no time has ended too
        return ended

    def _settle(self, ended: list[Arrival]) -> None:
        """A step that reads is over, what is written ends, and the next step that reads begins.

        Whatever has less time left than the clock can tell is over: an event must not come again at the same time.
        """
        if self._step_ends - self._at <= self._least_s():
            self._end_step()
        while self._ends and self._is_now(self._ends[0][0]):
            request = heapq.heappop(self._ends)[2]
            request.wall_s = self._at - request.at
            self._cached -= request.prompt_tokens + _steps(request)
            self.work -= request.units
            self.version += 1
            ended.append(request)
        if not self._ends:
            self._cached = self._pace = 0.0
        self._begin_step()

    def _begin_step(self) -> None:
        """If there is anything to be read, the next step reads; it begins when the one before is over."""
        if not self._reading or self._step_ends < math.inf:
            return
        if self._ends and not self._is_now(round(self._pace)):
            return
        left, seconds = max(self._step_tokens - len(self._ends), 1), 0.0
        self._step_reads = 0
        for request in self._reading:
            part = min(request.prompt_tokens - self._read_tokens, left)
            seconds += part * (self._cost.prompt + self._cost.prompt_squared * request.prompt_tokens)
            left -= part
            self._read_tokens += part
            if self._read_tokens < request.prompt_tokens:
                break
            self._step_reads += 1
            self._read_tokens = 0
            if not left:
                break
        writes = len(self._ends) + self._step_reads
        self._step_ends = self._at + seconds + (self._step_s(writes) if writes else 0.0)
        self.version += 1

    def _end_step(self) -> None:
        """Everybody who is written for has one more token, and who was read to the end the first one."""
        self._step_ends = math.inf
        self._pace = round(self._pace)  # steps are whole
        self._write(1.0)
        for _ in range(self._step_reads):
            request = self._reading.popleft()
            request.first_s = self._at - request.at
            self._cached += request.prompt_tokens
            self._number += 1
            heapq.heappush(self._ends, (self._pace + _steps(request), self._number, request))
        self.version += 1

    def _write(self, tokens: float) -> None:
        self._pace += tokens
        self._cached += tokens * len(self._ends)

    def _next_s(self) -> float:
        if self._step_ends < math.inf:
            return max(self._step_ends - self._at, 0.0)
        if not self._ends:
            return math.inf
        until = self._ends[0][0]
        if self._reading:  # they are waited with until the step is over
            until = min(until, math.ceil(self._pace))
        return max((until - self._pace) * self._step_s(len(self._ends)), 0.0)

    def _is_now(self, pace: float) -> bool:
        return abs(pace - self._pace) * self._step_s(len(self._ends)) <= self._least_s()

    def _least_s(self) -> float:
        return max(_ROUNDING_S, 4.0 * math.ulp(self._at))

    def _step_s(self, many: int) -> float:
        cost = self._cost
        return cost.step + many * cost.sequence + cost.context * max(self._cached, 0.0)


def _steps(request: Arrival) -> int:
    """After the one that reads the end of its prompt, which gives it its first token."""
    return max(request.output_tokens - 1, 0)
