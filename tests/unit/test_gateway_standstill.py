"""A replica that makes nothing is noticed by what its engine counts, and left alone; one that works is waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from gateway_serving import BASE, CHAT, Served, deployed, gateway_before, serving

from headrace.contracts.openai.demand import Demand
from headrace.gateway.attempts import Attempts, deadline_of
from headrace.gateway.exchange import Exchange
from headrace.gateway.health import FIRST_EJECTION_S, Health
from headrace.gateway.standstill import LOOKS, Standstills

URL = f"{BASE}/chat/completions"
TIMEOUT_S = 120.0
ANSWER = json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode()


class Engine:
    """Answers nothing until it may, and counts tokens as it is told to.

    Attributes:
        made: Tokens that it says it has made; None: it says nothing.
        makes: What it counts: one that embeds counts what it reads.
        counts: Whether its metrics have tokens at all.
    """

    def __init__(self) -> None:
        self.made: int | None = 5
        self.makes = b"generation"
        self.counts = True
        self.asked = 0
        self.asked_once, self.may_answer = asyncio.Event(), asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        if exchange.head.target == b"/metrics":
            if self.made is None:
                exchange.abort()
                return
            text = b'vllm:%s_tokens_total{engine="0",model_name="m"} %d.0\n' % (self.makes, self.made)
            await exchange.answer(200, [], text if self.counts else b"")
            return
        self.asked += 1
        self.asked_once.set()
        await self.may_answer.wait()
        await exchange.answer(200, [(b"content-type", b"application/json")], ANSWER)


class Clock:
    """Stands until it is told to go."""

    now = 1000.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


class Case:
    """Engines behind a gateway, and looks at them."""

    def __init__(self, served: Served, engines: list[Engine]) -> None:
        self.served, self.engines, self.clock = served, engines, Clock()
        fleet = served.gateway._routing.fleet
        self.pool = fleet.pools["dep-d1"]
        self.standstills = Standstills(fleet, TIMEOUT_S, self.clock)
        self.tasks: list[asyncio.Task[httpx.Response]] = []

    def ask(self) -> asyncio.Task[httpx.Response]:
        """A unary request."""
        self.tasks.append(asyncio.create_task(self.served.client.post(URL, json=CHAT)))
        return self.tasks[-1]

    async def owes(self) -> Engine:
        """The engine that has a request of its own now."""
        self.ask()
        asked = [asyncio.create_task(engine.asked_once.wait()) for engine in self.engines]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        for task in asked:
            task.cancel()
        return next(engine for engine in self.engines if engine.asked)

    def trusted(self, engine: Engine) -> bool:
        """Whether the gateway gives it requests."""
        return self.pool.replicas[self.engines.index(engine)].health.trusted

    async def pass_deadline(self) -> None:
        """Look as often as in the time of the deadline."""
        for _ in range(LOOKS):
            await self.standstills.look()
            self.clock.now += TIMEOUT_S / LOOKS


@asynccontextmanager
async def case(folder: Path, count: int = 2) -> AsyncIterator[Case]:
    """So many engines behind a gateway."""
    async with AsyncExitStack() as stack:
        engines = [Engine() for _ in range(count)]
        for number, engine in enumerate(engines):
            await stack.enter_async_context(serving(engine, uds=folder / f"e{number}"))
        model = deployed(*(f"unix:{folder / f'e{number}'}" for number in range(count)))
        ready = Case(await stack.enter_async_context(gateway_before(folder, model)), engines)
        yield ready
        for engine in engines:
            engine.may_answer.set()
        assert {answer.status_code for answer in await asyncio.gather(*ready.tasks)} <= {200}


@pytest.mark.parametrize("made", [5, None], ids=["counts no further", "says nothing"])
def test_what_makes_nothing_is_ejected_in_time(tmp_path: Path, made: int | None) -> None:
    """Within the time that a stream's first byte may take; others get what comes, and nobody tries it meanwhile."""

    async def main() -> None:
        async with case(tmp_path) as given:
            still = await given.owes()
            still.made = made
            [moving] = [engine for engine in given.engines if engine is not still]
            for _ in range(LOOKS - 1):
                await given.standstills.look()
                assert given.trusted(still)
                given.clock.now += TIMEOUT_S / LOOKS
            await given.standstills.look()
            assert (given.trusted(still), given.trusted(moving)) == (False, True)
            moving.may_answer.set()
            health = given.pool.replicas[given.engines.index(still)].health
            assert not health.due(1e12)
            for _ in range(8):
                assert (await given.ask()).status_code == 200
            assert still.asked == 1

    asyncio.run(main())


@pytest.mark.parametrize("makes", [b"generation", b"prompt"])
def test_what_counts_on_is_waited_for(tmp_path: Path, makes: bytes) -> None:
    """A long answer is no standstill, however long it takes, as long as tokens are made, or read to be embedded."""

    async def main() -> None:
        async with case(tmp_path) as given:
            for engine in given.engines:
                engine.makes = makes
            busy = await given.owes()
            for _ in range(4 * LOOKS):
                await given.standstills.look()
                assert given.trusted(busy)
                assert busy.made is not None
                busy.made += 1
                given.clock.now += TIMEOUT_S / 2

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 2])
def test_what_works_for_others_is_waited_for(tmp_path: Path, count: int) -> None:
    """While an engine makes tokens, for whichever gateway, a stream waits in it; not longer than its silence may last
    once it makes none, says nothing or says so again."""

    async def main() -> None:
        async with case(tmp_path, count) as given:
            given.pool.clock = given.clock
            attempts = Attempts(given.pool, Demand(10, 10), deadline_of(0.0, 1e9, None), TIMEOUT_S)
            stream = attempts.choose()
            assert stream is not None
            engine = given.engines[given.pool.replicas.index(stream.replica)]
            for made, more_s in ((5, 0.0), (5, 0.0), (6, TIMEOUT_S), (7, TIMEOUT_S), (7, 100.0), (None, 80.0)):
                engine.made = made
                await given.standstills.look()
                assert attempts.more_s(stream) == more_s
                given.clock.now += 20.0
            engine.made = 7
            await given.standstills.look()
            assert attempts.more_s(stream) == 60.0
            assert given.trusted(engine)
            given.clock.now += 60.0
            assert attempts.more_s(stream) == 0.0
            stream.release()

    asyncio.run(main())


def test_what_does_not_count_is_not_judged(tmp_path: Path) -> None:
    """An engine whose metrics say nothing of tokens, one that owes nothing, and one that is alone stay trusted."""

    async def main() -> None:
        async with case(tmp_path) as given:
            owing = await given.owes()
            owing.counts = False
            await given.pass_deadline()
            await given.standstills.look()
            assert all(given.trusted(engine) for engine in given.engines)

    async def alone() -> None:
        async with case(tmp_path / "alone", 1) as given:
            await given.owes()
            await given.pass_deadline()
            await given.standstills.look()
            assert given.trusted(given.engines[0])

    asyncio.run(main())
    (tmp_path / "alone").mkdir()
    asyncio.run(alone())


def test_what_goes_on_is_tried_again(tmp_path: Path) -> None:
    """Once it makes tokens, or owes nothing any more, the next request may try it."""

    async def main() -> None:
        async with case(tmp_path) as given:
            still = await given.owes()
            health = given.pool.replicas[given.engines.index(still)].health
            await given.pass_deadline()
            await given.standstills.look()
            assert not health.due(given.clock.now + FIRST_EJECTION_S)
            still.made = 6
            await given.standstills.look()
            assert health.due(given.clock.now + FIRST_EJECTION_S)
            await given.pass_deadline()
            await given.standstills.look()
            assert not health.due(given.clock.now + FIRST_EJECTION_S)
            given.tasks.pop().cancel()
            async with asyncio.timeout(20):
                while given.pool.replicas[given.engines.index(still)].outstanding:
                    await given.served.admin_get("/status")
            await given.standstills.look()
            assert health.due(given.clock.now + FIRST_EJECTION_S)

    asyncio.run(main())


def test_an_answer_ends_a_standstill() -> None:
    """Whoever answers does not stand still."""
    health = Health()
    health.stood_still(1.0)
    health.stood_still(2.0)
    assert (health.trusted, health.failures, health.due(1.0 + FIRST_EJECTION_S)) == (False, 1, False)
    health.answered(3.0)
    assert (health.trusted, health.stands_still) == (True, False)
