"""Admission to one deployment: so many run, so many wait in line, the rest are told when to come back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from headrace.contracts.openai.usage import Usage
from headrace.gateway.drain_rate import DrainRate
from headrace.gateway.fair_queue import FairQueue, Visit
from headrace.gateway.kept_places import REMEMBERED_S, KeptPlaces
from headrace.resources.errors import FailedForGood, Failure, HeadraceError, NotReady, QueueFull, QueueTimeout
from headrace.resources.priority import Priority

CLOSED_RETRY_AFTER_S = 30.0
"""When to come back to what did not open while one waited: nothing tells when it will, and soon is not likely."""

BATCH_TURN = 10
"""While both wait, every tenth turn is a batch request's. So it never starves, and takes little from those who wait for
their answers: a line of interactive requests takes a ninth longer."""

_TRY_AGAIN = "Try again after the time in `Retry-After`, send fewer at a time, or ask for more replicas."


class WaitingRoom:
    """Guaranteed requests go before interactive ones, those before batch ones; within a class who had least service.

    * Guaranteed ones may begin although no place is free, and places are kept for them (`KeptPlaces`). They are never
      sent away because the line is full, and within their class tenants take turns, not keys.
    * While the other two classes wait, nine turns are interactive and the tenth is batch (`BATCH_TURN`).
    * Within a class `FairQueue` decides; with one key it is first in, first out.
    * A full line makes room for a request by sending one of a lower class away; and for a key that holds fewer
      places than another of its class, by sending one of that other away. It is always the one that came last, of the
      key that holds most. So neither batch nor one busy key keeps others out.

    A waiter that is cancelled frees its place at once.

    Args:
        name: What callers wait for, for messages.

    Attributes:
        running: Requests that were let in and have not left.
        closed_because: Why nobody is let in while that is so, for messages.
    """

    def __init__(self, name: str, *, max_running: int, max_waiting: int, max_wait_s: float) -> None:
        self._name = name
        self._lines = {priority: FairQueue() for priority in Priority}
        self._kept = KeptPlaces()
        self._looking: asyncio.TimerHandle | None = None
        self._passed_batch = 0  # interactive ones let in past a batch one that waited
        self._drain_rate = DrainRate()
        self._active_at = time.monotonic()
        self.running = 0
        self.closed_because = ""
        self.resize(max_running=max_running, max_waiting=max_waiting, max_wait_s=max_wait_s)

    @property
    def waiting(self) -> int:
        """Requests in line, of all classes."""
        return sum(map(len, self._lines.values()))

    @property
    def idle_s(self) -> float:
        """For how long nobody has run or waited here; 0 while somebody does."""
        return 0.0 if self.running or self.waiting else time.monotonic() - self._active_at

    def open(self) -> None:
        """Begin to count anew for how long nobody comes: there was no way in before, or they came elsewhere."""
        self._active_at = time.monotonic()

    def resize(self, *, max_running: int, max_waiting: int, max_wait_s: float) -> None:
        """Take new limits; more room lets waiters in at once, less room sends nobody away."""
        self.max_running, self.max_waiting, self.max_wait_s = max_running, max_waiting, max_wait_s
        self._let_in()

    def keep(self, means: Mapping[str, float], reading_s: Callable[[int], float] | None = None) -> None:
        """Keep places for tenants with guarantees; as `KeptPlaces.follow` has it."""
        self._kept.follow(means, self.max_running, reading_s)
        self._let_in()

    async def come_in(self, visit: Visit) -> None:
        """Wait for a turn; `depart` gives it back, and charges what the visit was told by then that it used.

        Raises:
            QueueFull: The line is as long as it may be, or others need the place in it.
            QueueTimeout: The turn did not come within `max_wait_s`.
            NotReady: What callers wait for was taken away, or nobody was let in within `max_wait_s`.
        """
        if self._fits(visit):
            self._begin(visit)
            self._lines[visit.priority].enter(visit)
            return
        await self._wait_in_line(visit)
        while not self.max_running:  # closed after we were let in, before we could go
            self._give_back(visit)
            await self._wait_in_line(visit)

    def depart(self, visit: Visit) -> None:
        """Give a turn back that was had, to the next in line."""
        self._active_at = time.monotonic()
        self._drain_rate.departed(self._active_at)
        self._leave(visit)

    def dismiss(self, error: HeadraceError) -> None:
        """Send everybody in line away with this error."""
        for line in self._lines.values():
            for visit in line.clear():
                _send_away(visit, error)

    def retry_after_s(self, priority: Priority = Priority.INTERACTIVE) -> float:
        """When those who stand before a newcomer of this class will have been served, as fast as they leave.

        Before there is anything to go by it is the longest that anybody may stand in line: after that each of them has
        started or left.
        """
        longest_s = max(1.0, math.ceil(self.max_wait_s))
        if not self.max_running:
            return min(CLOSED_RETRY_AFTER_S, longest_s)
        rate_per_s = self._drain_rate.per_s(time.monotonic())
        if rate_per_s is None:
            return longest_s
        return min(max(1.0, math.ceil((self._ahead_of(priority) + 1) / rate_per_s)), longest_s)

    def _ahead_of(self, priority: Priority) -> int:
        """Who goes before a newcomer of this class, of those who stand in line."""
        guaranteed, interactive, batch = (len(self._lines[each]) for each in Priority)
        if priority is Priority.GUARANTEED:
            return guaranteed
        if priority is Priority.BATCH:
            return guaranteed + interactive + batch
        return guaranteed + interactive + min(batch, interactive // (BATCH_TURN - 1))

    def _fits(self, visit: Visit) -> bool:
        """Whether a newcomer need not stand in line: as `_let_in` leaves it, nobody stands there whom it would pass."""
        if not self._kept.sold:
            return self.running < self.max_running
        if visit.priority is Priority.GUARANTEED:
            free = self.running < self.max_running or (self.max_running > 0 and self._kept.is_free(visit.key_id))
            return free and not self._lines[Priority.GUARANTEED].held(visit.key_id)
        return self._others_fit() and not self.waiting

    def _others_fit(self) -> bool:
        """Whether one more request without a guarantee may begin."""
        others = self.running - self._kept.running
        beside = self.running < self.max_running and others < self.max_running - self._kept.kept()
        return beside and not self._kept.reading_s()

    def _begin(self, visit: Visit) -> None:
        self.running += 1
        if self._kept.sold:
            self._kept.read(visit.prompt_tokens)
        if visit.priority is Priority.GUARANTEED:
            self._kept.enter(visit.key_id)

    async def _wait_in_line(self, visit: Visit) -> None:
        line = self._lines[visit.priority]
        self._make_room(visit)
        if not self.waiting:
            self._drain_rate.begin(time.monotonic())
        loop = asyncio.get_running_loop()
        visit.turn = turn = loop.create_future()
        line.join(visit)
        if self._kept.sold:
            self._look_again()
        patience = loop.call_later(self.max_wait_s, self._lose_patience, visit, self.max_wait_s)
        try:
            await turn  # whoever let us in has counted us as running
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # let in, and gone in the same moment
                self._give_back(visit)
            raise
        finally:
            patience.cancel()
            line.leave(visit)
            visit.turn = None
            del turn  # it holds the error whose frames hold this one
            self._active_at = time.monotonic()

    def _make_room(self, newcomer: Visit) -> None:
        """See that there is a place in line.

        Raises:
            QueueFull: There is none, and nobody who has to give it up.
        """
        if self.waiting < self.max_waiting:
            return
        crowding = self._lower(newcomer)
        if newcomer.priority is Priority.GUARANTEED and crowding is None:
            return  # its tenant's rate bounds how many there are
        if crowding is None:
            own = self._lines[newcomer.priority]
            crowding = own.crowding(own.held(newcomer.key_id) + 1)
        if crowding is None:
            raise self._full(newcomer.priority)
        _send_away(crowding, self._pushed_out(crowding, newcomer))
        self._lines[crowding.priority].leave(crowding)

    def _lower(self, newcomer: Visit) -> Visit | None:
        """Who of a lower class has to go first for a newcomer."""
        lowest_first = list(Priority)[::-1]
        for priority in lowest_first[: lowest_first.index(newcomer.priority)]:
            if (crowding := self._lines[priority].crowding(0)) is not None:
                return crowding
        return None

    def _full(self, priority: Priority) -> QueueFull:
        return QueueFull(
            f"Too many requests wait for {self._name}.",
            evidence=self._who_runs_and_waits(),
            fix=_TRY_AGAIN,
            retry_after_s=self.retry_after_s(priority),
        )

    def _pushed_out(self, crowding: Visit, newcomer: Visit) -> QueueFull:
        if newcomer.priority is crowding.priority:
            why = "another key, which has fewer requests in line, needed the place"
        else:
            why = f"{_A[newcomer.priority]} request needed the place, and this is {_A[crowding.priority]} request"
        return QueueFull(
            f"Too many requests wait for {self._name}: {why}.",
            evidence=self._who_runs_and_waits(),
            fix=_TRY_AGAIN,
            retry_after_s=self.retry_after_s(crowding.priority),
        )

    def _lose_patience(self, visit: Visit, waited_s: float) -> None:
        if visit.waits:
            _send_away(visit, self._turn_away(visit, waited_s))
            self._lines[visit.priority].leave(visit)

    def _turn_away(self, visit: Visit, waited_s: float) -> HeadraceError:
        if not self.max_running:
            return NotReady(
                f"The request waited {waited_s:g} s for a replica of {self._name} and none became ready.",
                evidence=self.closed_because,
                fix="`headrace deployments` shows how far it is, and what keeps it.",
                retry_after_s=CLOSED_RETRY_AFTER_S,
            )
        return QueueTimeout(
            f"The request waited {waited_s:g} s for {self._name} and its turn did not come.",
            evidence=self._who_runs_and_waits(),
            fix="Try again later, send fewer at a time, or ask for more replicas.",
            retry_after_s=self.retry_after_s(visit.priority),
        )

    def _who_runs_and_waits(self) -> str:
        batch = len(self._lines[Priority.BATCH])
        numbers = f"{self.running} are running and {self.waiting} of at most {self.max_waiting} are waiting"
        return f"{numbers}, {batch} of them batch." if batch else f"{numbers}."

    def _leave(self, visit: Visit) -> None:
        self.running -= 1
        if visit.priority is Priority.GUARANTEED:
            self._kept.leave(visit.key_id)
        self._lines[visit.priority].release(visit)
        self._let_in()

    def _give_back(self, visit: Visit) -> None:
        """Leave without having done anything."""
        visit.used = Usage(0, 0)
        self._leave(visit)
        visit.used = None

    def _let_in(self) -> None:
        if not any(self._lines.values()):  # as after most requests
            self._passed_batch = 0
            return
        while (visit := self._next()) is not None:
            self._begin(visit)
            assert visit.turn is not None
            visit.turn.set_result(None)

    def _next(self) -> Visit | None:
        """Who may begin now."""
        guaranteed = self._lines[Priority.GUARANTEED]
        if self.running >= self.max_running:
            return guaranteed.next(self._kept.is_free) if guaranteed and self.max_running else None
        if guaranteed and (visit := guaranteed.next()) is not None:
            return visit
        if self._kept.sold and not self._others_fit():
            self._look_again()
            return None
        return self._next_of_others()

    def _look_again(self) -> None:
        """Prompts are read, and kept places are given away to which nobody comes, without that anybody leaves."""
        if not self.waiting:
            return
        loop = asyncio.get_running_loop()
        at_s = loop.time() + (self._kept.reading_s() or REMEMBERED_S)
        if self._looking is not None and self._looking.when() > at_s:
            self._looking.cancel()
            self._looking = None
        if self._looking is None:
            self._looking = loop.call_at(at_s, self._look)

    def _look(self) -> None:
        self._looking = None
        self._let_in()

    def _next_of_others(self) -> Visit | None:
        interactive, batch = self._lines[Priority.INTERACTIVE], self._lines[Priority.BATCH]
        if self._passed_batch < BATCH_TURN - 1 and (visit := interactive.next()) is not None:
            self._passed_batch += bool(batch)
            return visit
        if (visit := batch.next()) is not None:
            self._passed_batch = 0
            return visit
        self._passed_batch = 0
        return interactive.next()


_A = {Priority.GUARANTEED: "a guaranteed", Priority.INTERACTIVE: "an interactive", Priority.BATCH: "a batch"}


def _send_away(visit: Visit, error: HeadraceError) -> None:
    if visit.waits:
        assert visit.turn is not None
        visit.turn.set_exception(error)


def failed_for_good(name: str, failure: Failure) -> FailedForGood:
    """What is told of a deployment that will not be READY again: waiting does not help."""
    return FailedForGood(
        f"{name} failed, and does not come back by itself.",
        evidence=f"{failure.code}: {failure.message}",
        fix=f"{failure.fix} `headrace status` shows its last error.".lstrip(),
    )


def no_longer_deployed(name: str) -> NotReady:
    """What waiters are told when what they wait for is undeployed."""
    return NotReady(
        f"{name} was undeployed while the request waited for it.", fix="`headrace endpoints` shows what is."
    )
