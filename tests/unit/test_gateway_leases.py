"""Several gateways share a key's limits by leases: never more than the limit, whatever is lost, late or killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from gateway_serving import KEY, key
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_gateway_budget import LIMIT, WAITS, Clock, Request, most_arrived, most_used

from headrace.control.leases import LeaseLedger
from headrace.gateway.budgets import Budgets
from headrace.gateway.leases import Leases
from headrace.gateway.limit_notes import LimitNotes
from headrace.gateway.notes import STALE_AFTER_S
from headrace.resources.errors import Draining, KeyLimited
from headrace.resources.leases import LeaseAnswer, LeaseReport
from headrace.resources.limits import KeyLimits

GATEWAYS = 2
REQUESTS = 12
KEY_ID = f"id-{KEY}"
KEYS = (msgspec.structs.replace(key(KEY), limits=KeyLimits(tokens_per_minute=LIMIT, requests_per_minute=REQUESTS)),)
WHO = st.integers(0, GATEWAYS - 1)


class Process:
    """One gateway process, as far as limits go; its timer is turned by hand."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        notes = LimitNotes(folder / "snapshot.json")
        self.leases = Leases(folder / "leases.json", run="run", note=notes.name, clock=clock)
        self.budgets = Budgets(notes, clock, self.leases)
        self.budgets._changed = lambda: None  # type: ignore[method-assign]
        self.note = folder / notes.name
        self.knows = False
        self.requests: list[Request] = []
        self.answer: LeaseAnswer | None = None
        self.wants = contextlib.ExitStack()

    def follow(self) -> None:
        """The snapshot with the key comes."""
        self.knows = True
        self.budgets.follow(KEYS)

    @property
    def budget(self) -> Any:
        """What a request needs room in."""
        return self.budgets.of(KEY_ID)

    def ask(self, tokens: int, now: float) -> list[Request]:
        """A request; the list is empty if it is refused."""
        budget = self.budget
        with contextlib.suppress(KeyLimited, Draining):
            if budget is not None:
                self.requests.append(Request(budget.reserve(tokens), now))
                return self.requests[-1:]
        return []

    def tell(self, *, over: bool = False) -> None:
        """It writes its note, which does not become old by itself, however slow the test is."""
        self.budgets.tell(over=over)
        self._stays_fresh()

    def hand_over(self) -> None:
        """Another one takes its place."""
        self.budgets.hand_over()
        self._stays_fresh()

    def _stays_fresh(self) -> None:
        if self.note.exists():
            os.utime(self.note, (time.time() + 3600, time.time() + 3600))

    def gone(self, now: float) -> None:
        """Its requests end with it; nobody knows what they used, so it may be all."""
        for request in self.requests:
            request.ended = min(request.ended, now)

    def held(self, unit: str) -> int:
        """Its lease."""
        budget = self.budget
        return (getattr(budget, unit).lease or 0) if budget is not None else 0


def test_who_waits_waits_until_the_other_gateway_gives_back(tmp_path: Path) -> None:
    """However often its own gateway asks before the other one is heard again, a request that fits is not refused."""

    async def main() -> None:
        clock, ledger = Clock(), LeaseLedger(GATEWAYS)
        ledger.follow(KEYS)
        mine, other = (Process(tmp_path / str(number), clock) for number in range(GATEWAYS))

        def exchange(number: int) -> None:
            leases = (mine, other)[number].leases
            leases.take(ledger.report(number, leases.report()))

        for number in (0, 1):
            (tmp_path / str(number)).mkdir()
            (mine, other)[number].follow()
        for _ in range(2):
            exchange(0)
            exchange(1)
        budget, more = mine.budgets.of(KEY_ID), mine.held("tokens") + 1
        assert budget is not None
        assert more <= LIMIT
        waiting = asyncio.create_task(budget.when_it_fits(more, partial(budget.reserve, more)))
        for _ in range(5):
            await asyncio.sleep(0)
            assert not waiting.done()
            exchange(0)
        exchange(1)  # it hears what to give back
        exchange(1)  # and says that it has
        await asyncio.sleep(0)
        exchange(0)
        assert (await waiting).tokens == more

    asyncio.run(main())


class Crew(RuleBasedStateMachine):
    """Two gateways and control. Messages are lost, late, or answered to nobody; each of the three is killed."""

    process = Process
    name = KEY_ID

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hr-leases-"))
        self.clock = Clock()
        self.requests: list[Request] = []
        self.drainers: list[Process] = []
        self.late: list[tuple[int, LeaseReport]] = []
        self.ledger = LeaseLedger(GATEWAYS)
        self._follow()
        self.gateways = [self._started(number) for number in range(GATEWAYS)]
        for number, gateway in enumerate(self.gateways):
            gateway.follow()
            self._exchange(number)

    def teardown(self) -> None:
        """Nothing is left."""
        shutil.rmtree(self.folder)

    def _started(self, number: int) -> Process:
        folder = self.folder / str(number)
        folder.mkdir(exist_ok=True)
        return self.process(folder, self.clock)

    def _follow(self) -> None:
        self.ledger.follow(KEYS)

    def _exchange(self, number: int) -> None:
        gateway = self.gateways[number]
        gateway.leases.take(self.ledger.report(number, gateway.leases.report()))

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.now += seconds

    @rule(who=WHO, tokens=st.integers(0, LIMIT))
    def ask(self, who: int, tokens: int) -> None:
        """A request comes."""
        self.requests += self.gateways[who].ask(tokens, self.clock.now)

    @rule(who=WHO)
    def ask_for_all(self, who: int) -> None:
        """A request comes for all that is left there."""
        budget = self.gateways[who].budget
        if budget is not None:
            self.ask(who, budget.tokens.free)

    @rule(who=WHO)
    def move(self, who: int) -> None:
        """A request waits for all that there is, for as long as it takes for it to come from the others."""
        for number in range(GATEWAYS):
            self.receive(number, comes=True)
        with self.gateways[who].leases._want(self.name, LIMIT):
            for _ in range(2):
                for number in range(GATEWAYS):
                    self._exchange(number)
            self._exchange(who)

    @rule(who=WHO, tokens=st.integers(1, LIMIT))
    def want(self, who: int, tokens: int) -> None:
        """A request waits for more."""
        self.gateways[who].wants.enter_context(self.gateways[who].leases._want(self.name, tokens))

    @rule(who=WHO)
    def want_no_more(self, who: int) -> None:
        """All that waited there have gone."""
        self.gateways[who].wants.close()

    @rule(which=st.integers(0, 100), percent=st.integers(0, 100))
    def end(self, which: int, percent: int) -> None:
        """A request ends, and less than it had reserved was used."""
        running = [each for each in self.requests if each.ended == float("inf")]
        if running:
            request = running[which % len(running)]
            request.ended, request.used = self.clock.now, request.reservation.tokens * percent // 100
            request.reservation.settle(request.used)

    @rule(who=WHO)
    def exchange(self, who: int) -> None:
        """A gateway tells, and is told, at once."""
        if self.gateways[who].answer is None:
            self._exchange(who)

    @rule(who=WHO)
    def send(self, who: int) -> None:
        """A gateway tells, and the answer is on its way."""
        gateway = self.gateways[who]
        if gateway.answer is None:
            gateway.answer = self.ledger.report(who, gateway.leases.report())

    @rule(who=WHO, comes=st.booleans())
    def receive(self, who: int, comes: bool) -> None:
        """It comes, or is lost."""
        gateway = self.gateways[who]
        if gateway.answer is not None and comes:
            gateway.leases.take(gateway.answer)
        elif gateway.answer is not None:
            gateway.leases.no_answer()
        gateway.answer = None

    @rule(who=WHO)
    def send_in_vain(self, who: int) -> None:
        """What a gateway tells comes later than it waits for the answer, if at all."""
        gateway = self.gateways[who]
        if gateway.answer is None:
            self.late.append((who, gateway.leases.report()))
            gateway.leases.no_answer()

    @precondition(lambda self: self.late)
    @rule(which=st.integers(0, 100))
    def arrive_late(self, which: int) -> None:
        """Nobody waits for the answer any more."""
        self.ledger.report(*self.late.pop(which % len(self.late)))

    @rule()
    def kill_control(self) -> None:
        """It knows nothing any more, and what was on its way to it is lost."""
        self.ledger = LeaseLedger(GATEWAYS)
        self._follow()
        self.late.clear()

    @rule(who=WHO)
    def note(self, who: int) -> None:
        """A gateway's timer has it write its note."""
        self.gateways[who].tell()

    @rule(who=WHO, knows=st.booleans())
    def kill_gateway(self, who: int, knows: bool) -> None:
        """Another one takes its place, with the snapshot or without."""
        self.gateways[who].gone(self.clock.now)
        self._replace(who, knows=knows)

    @rule(who=WHO, knows=st.booleans())
    def drain_gateway(self, who: int, knows: bool) -> None:
        """It hands over, and ends its requests beside the one in its place."""
        self.gateways[who].hand_over()
        self.drainers.append(self.gateways[who])
        self._replace(who, knows=knows)

    def _replace(self, who: int, *, knows: bool) -> None:
        self.gateways[who] = self._started(who)
        if knows:
            self.gateways[who].follow()

    @rule(who=WHO)
    def snapshot(self, who: int) -> None:
        """The snapshot comes, or comes again."""
        self.gateways[who].follow()

    @precondition(lambda self: self.drainers)
    @rule(which=st.integers(0, 100), tokens=st.integers(0, LIMIT))
    def ask_drainer(self, which: int, tokens: int) -> None:
        """A kept connection brings a request to a gateway that drains, which then tells what is left there."""
        drainer = self.drainers[which % len(self.drainers)]
        self.requests += drainer.ask(tokens, self.clock.now)
        drainer.tell()

    @precondition(lambda self: self.drainers)
    @rule(which=st.integers(0, 100), killed=st.booleans())
    def end_drainer(self, which: int, killed: bool) -> None:
        """Its last word comes, or it does not, and what it told before becomes old."""
        drainer = self.drainers.pop(which % len(self.drainers))
        if not killed:
            drainer.tell(over=True)
        elif drainer.note.exists():
            long_ago = time.time() - STALE_AFTER_S - 1
            os.utime(drainer.note, (long_ago, long_ago))
        drainer.gone(self.clock.now)

    @invariant()
    def never_more_than_the_limits(self) -> None:
        """Whatever 60 s one looks at."""
        assert most_used(self.requests) <= LIMIT
        assert most_arrived(self.requests) <= REQUESTS

    @invariant()
    def nothing_is_leased_twice(self) -> None:
        """All leases of a limit are together at most the limit."""
        assert sum(gateway.held("tokens") for gateway in self.gateways) <= LIMIT
        assert sum(gateway.held("requests") for gateway in self.gateways) <= REQUESTS


Crew.TestCase.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=50, suppress_health_check=[HealthCheck.too_slow]
)
TestCrew: Any = Crew.TestCase
