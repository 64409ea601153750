"""Which replicas a request was sent to, and whether it may go to another: before the first byte, and in time."""

from __future__ import annotations

import math
import time

from headrace.contracts.openai.demand import Demand
from headrace.gateway.fleet import Assignment, Pool, Replica
from headrace.gateway.request_head import RequestHead
from headrace.gateway.upstream import TimedOut, Unreachable, UpstreamAnswer, UpstreamError

MOST_BEGUN = 2
"""Replicas that may have begun on a request. One that broke off on two may be what ends them: it gets no third."""

WORTH = 1 / 8
"""Of a replica's longest silence, so much of a request's time must be left that another one is asked after it: in less
hardly an answer would begin, and the retry may be somebody else's."""

_CANNOT_NOW = frozenset({502, 503, 504})
"""By these an engine, or what stands before it, says that it is at fault and not the request."""

_PATIENCE = {b"x-stainless-read-timeout": 0.0, b"x-stainless-timeout": 1.0, b"x-server-timeout": 0.0}
"""Headers by which clients say how many seconds they wait, and what their rounding takes off: OpenAI's for Python
(``_base_client.py``), the same for JavaScript (``client.ts``, whole seconds, rounded down), Google's."""

_LONGEST_PATIENCE_S = 86_400.0


def patience_of(head: RequestHead) -> float | None:
    """For how many seconds the client says that it waits for the first byte; None if it does not say.

    The shortest, where it says several things. What is no number above zero is as if it were not there.
    """
    shortest: float | None = None
    for name, value in head.headers:
        if name in _PATIENCE:
            try:
                told_s = float(value)
            except ValueError:
                continue
            if 0.0 < told_s <= _LONGEST_PATIENCE_S and (shortest is None or told_s + _PATIENCE[name] < shortest):
                shortest = told_s + _PATIENCE[name]
    return shortest


def deadline_of(arrived_s: float, limit_s: float, patience_s: float | None) -> float:
    """When an answer must have begun, by ``time.monotonic()``.

    Args:
        arrived_s: When the request came.
        limit_s: How long the gateway waits for an engine, from now.
        patience_s: How long the client waits, from when it sent the request.
    """
    deadline = time.monotonic() + limit_s
    return deadline if patience_s is None else min(deadline, arrived_s + patience_s)


class Attempts:
    """The replicas that one request was sent to. Each gets it once at most.

    Another one is tried only before the first byte, while there is time left before the request's deadline, out of the
    pool's retry budget, and after no more than `MOST_BEGUN` that may have begun on it.

    A replica that works for others while it says nothing to this request has it in a line that moves: it is waited for
    until the deadline, and not to blame for one that its client set. One that was silent to everybody for as long as it
    may be is given up, and another one asked.

    Args:
        pool: What is chosen from.
        demand: What the request asks.
        deadline: When its answer must have begun, by ``time.monotonic()``.
        silence_s: For how long a replica may say nothing to anybody.
    """

    def __init__(self, pool: Pool, demand: Demand, deadline: float, silence_s: float = math.inf) -> None:
        self._pool = pool
        self._demand = demand
        self._deadline = deadline
        self._silence_s = silence_s
        self._tried: list[Replica] = []
        self._begun = 0
        self._late: TimedOut | None = None
        pool.retries.earn()

    @property
    def left_s(self) -> float:
        """How much of its time is left."""
        return self._deadline - time.monotonic()

    def choose(self) -> Assignment | None:
        """The replica that gets it now; None if there is none."""
        return self._pool.assign(self._demand, but=self._tried)

    def timeout_s(self, assignment: Assignment) -> float:
        """How long this one may say nothing; half of that where it is only on trial."""
        timeout_s = min(self.left_s, self._silence_s)
        return timeout_s / 2 if assignment.on_trial else timeout_s

    def more_s(self, assignment: Assignment) -> float:
        """How much longer it is waited for, once `timeout_s` is over: until it will have been silent for too long."""
        if assignment.on_trial:
            return 0.0
        return max(min(self.left_s, assignment.silence_left_s(self._silence_s)), 0.0)

    def goes_on_after(self, assignment: Assignment, error: UpstreamError, *, patient: bool) -> bool:
        """Note that there was no answer, and take a retry if there may be one.

        Args:
            assignment: Who gave none.
            error: How.
            patient: Whether it had time enough that it is to blame for a `TimedOut`, unless it works for others.
        """
        worth_s = 0.0
        if not isinstance(error, TimedOut):
            assignment.failed()
        else:
            self._late = TimedOut(*error.args)  # without the traceback, which holds this
            if not assignment.on_trial:
                worth_s = WORTH * self._silence_s
            if assignment.on_trial or (patient and assignment.silence_left_s(self._silence_s) <= 0.0):
                assignment.timed_out()
        return self._another(assignment, begun=not isinstance(error, Unreachable), worth_s=worth_s)

    async def replacement(self) -> Assignment | None:
        """The replica that gets it where there is none: one that is expected, and comes in time."""
        return self.choose() if await self.replaced() else None

    async def replaced(self, noticed_s: float = 0.0) -> bool:
        """Wait for a replica that takes the place of those that ended, if that is to come, and take a retry.

        Not where one was late, for it lives; and not where others are left to which it may not go.

        Args:
            noticed_s: For how long they may be listed on, because nobody knows yet that they ended.

        Returns:
            Whether one came.
        """
        pool, until, came = self._pool, time.monotonic() + noticed_s, False
        while self._late is None and self._begun < MOST_BEGUN:
            if any(replica not in self._tried for replica in pool.replicas):
                return came and pool.retries.spend()
            expected_s = until - time.monotonic() if pool.replicas else pool.replacement.left_s
            within_s = min(expected_s, self.left_s)
            if within_s <= 0.0:
                return False
            await pool.replacement.change(within_s)
            came = True
        return False

    @property
    def was_late(self) -> bool:
        """Whether a replica had it and did not answer in time: nobody knows what that one has done of it."""
        return self._late is not None

    def told(self, error: UpstreamError) -> UpstreamError:
        """What to say of an end by this error: that a replica was late, if one was, for that one may have begun."""
        return self._late or error

    def goes_on_instead_of(self, assignment: Assignment, answer: UpstreamAnswer) -> bool:
        """Note that an answer began, and take a retry if it says no more than that this replica cannot now."""
        if answer.status not in _CANNOT_NOW:
            assignment.answered()
            return False
        assignment.failed()
        return self._another(assignment, begun=True)

    def _another(self, assignment: Assignment, *, begun: bool, worth_s: float = 0.0) -> bool:
        self._tried.append(assignment.replica)
        self._begun += begun
        return (
            any(replica not in self._tried for replica in self._pool.replicas)
            and self._begun < MOST_BEGUN
            and self.left_s > worth_s
            and self._pool.retries.spend()
        )
