"""What of a sold throughput is let through in any minute, what is within the guarantee, and what is charged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from gateway_serving import SCOPE, deployed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_budget import WAITS, Clock

from headrace.contracts.openai.need import need_of
from headrace.contracts.openai.requests import read_object
from headrace.contracts.openai.usage import Usage
from headrace.control.leases import LeaseLedger
from headrace.gateway.allowance import WINDOW_S
from headrace.gateway.budget import Budget
from headrace.gateway.budgets import Budgets
from headrace.gateway.expectation import START_OUTPUT_TOKENS, Expectation
from headrace.gateway.guarantee import DEPTH_S, Guarantee
from headrace.gateway.leases import Leases
from headrace.gateway.limit_notes import LimitNotes
from headrace.gateway.throughput import Claim, Throughput
from headrace.gateway.throughputs import Throughputs
from headrace.gateway.work import expected_work, used_work
from headrace.resources.errors import ThroughputExceeded
from headrace.resources.limits import KeyLimits
from headrace.resources.profiles import Carried, Cost
from headrace.resources.snapshot import EndpointRoute, ProvisionRoute, RoutingSnapshot
from headrace.resources.work import MICROS, micros, tenant_of, work_limits

T = TypeVar("T")

COST = Cost(prompt=1e-3, prompt_squared=1e-6, step=8e-2, sequence=1e-3, context=1e-5)
CARRIED = Carried(cost=COST, concurrency=8, first_s=1.0, gap_s=0.1)
WORK = st.integers(1, 90 * MICROS)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits")


class Sold:
    """One tenant's throughput, on a clock that is told to go on."""

    def __init__(self, *, guaranteed: float = 0.5, most: float = 1.0) -> None:
        self.clock = Clock()
        provision = ProvisionRoute(carried=CARRIED, guaranteed=guaranteed, most=most)
        self.throughput = Throughput("tenant", provision, self.clock)
        self.budget = Budget(KeyLimits(tokens_per_minute=self.throughput.limit), self.clock)

    def claim(self, work: int, *, batch: bool = False) -> Claim | None:
        """A request; None if it is refused."""
        with contextlib.suppress(ThroughputExceeded):
            return at_once(self.throughput.claim(self.budget, work, batch=batch))
        return None


@given(st.lists(st.tuples(WORK, st.booleans()), max_size=20))
def test_what_finds_no_place_counts_as_coming(asked: list[tuple[int, bool]]) -> None:
    """What the most had room for and the line had not is work that more replicas would do; who tries again and again is
    not taken for more than was sold, and after a minute it is forgotten."""
    sold = Sold(most=1.0)
    came = 0
    for work, served in asked:
        claim = sold.claim(work)
        if claim is None:
            continue
        if served:
            claim.begin()
            claim.charge(work)
        claim.settle(exact=True, turned_away=True)
        came += work
        admitted = sum(sold.throughput.used.values())
        assert sold.throughput.per_minute() == max(admitted, min(came, sold.throughput.limit))
    sold.clock.now += 2 * WINDOW_S
    assert sold.throughput.per_minute() == 0


STEP = (
    st.tuples(st.just("arrive"), WORK)
    | st.tuples(st.just("end"), st.integers(0, 20))
    | st.tuples(st.just("wait"), WAITS)
)


@settings(deadline=None, max_examples=200)
@given(steps=st.lists(STEP, max_size=60))
def test_no_minute_holds_more_than_the_most(steps: list[tuple[str, Any]]) -> None:
    """Whatever arrives: where requests are what was expected of them, all that were under way in any 60 s are at most
    the most of a minute; but for one that is more than that by itself, which goes alone."""
    sold = Sold()
    done: list[tuple[Claim, float, float]] = []
    running: list[tuple[Claim, float]] = []
    for kind, value in steps:
        if kind == "wait":
            sold.clock.now += value
        elif kind == "arrive":
            if (claim := sold.claim(value)) is not None:
                claim.begin()
                running.append((claim, sold.clock.now))
        elif running:
            claim, began = running.pop(value % len(running))
            claim.charge(claim.work)
            claim.settle(exact=True)
            done.append((claim, began, sold.clock.now))
        every = [*done, *((claim, began, float("inf")) for claim, began in running)]
        limit = sold.throughput.limit
        for begin in [ended for *_, ended in every] + [began - WINDOW_S for _, began, _ in every]:
            within = [claim.work for claim, began, ended in every if ended >= begin and began <= begin + WINDOW_S]
            assert sum(min(work, limit) for work in within) <= limit or len(within) == 1
            assert sum(within) <= limit or sum(work > limit for work in within) <= 1


@settings(deadline=None, max_examples=200)
@given(
    expected=st.lists(st.tuples(WORK, st.integers(0, 100 * MICROS), st.booleans(), WAITS), max_size=40),
)
def test_it_settles_exactly(expected: list[tuple[int, int, bool, float]]) -> None:
    """What was used takes the place of what was expected, to the last millionth: nothing stays reserved or waits, and
    what a minute holds is the sum of what its requests used; where nobody told it is at least what was expected."""
    sold = Sold(most=1000.0)
    total = 0
    for work, used, exact, pause_s in expected:
        claim = sold.claim(work)
        assert claim is not None
        assert sold.throughput.waiting == work
        claim.begin()
        assert sold.throughput.waiting == 0
        claim.charge(used)
        claim.settle(exact=exact)
        claim.settle(exact=not exact)
        total += used if exact else max(used, work)
        assert sum(sold.throughput.used.values()) == total
        assert sold.budget.tokens.held == 0
        assert sold.throughput.per_minute() == sold.budget.tokens.used
        sold.clock.now += pause_s
        sold.budget.now()
    sold.clock.now += 2 * WINDOW_S
    sold.budget.now()
    assert (sold.budget.tokens.used, sold.throughput.per_minute()) == (0, 0)


@settings(deadline=None, max_examples=200)
@given(arrivals=st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(1, 30 * MICROS)), max_size=80))
def test_within_the_guarantee_nobody_is_refused(arrivals: list[tuple[float, int]]) -> None:
    """A tenant that asks no more than its guaranteed rate in any 60 s is let through each time, and each time as
    guaranteed; whatever it asks as batch besides."""
    sold = Sold(guaranteed=0.5, most=1.0)
    sent: list[tuple[float, int]] = []
    for pause_s, work in arrivals:
        sold.clock.now += pause_s
        lately = sum(each for at, each in sent if at > sold.clock.now - WINDOW_S - 1)
        if lately + work > 30 * MICROS:
            continue
        sent.append((sold.clock.now, work))
        claim = sold.claim(work)
        assert claim is not None
        assert claim.guaranteed
        claim.charge(work)
        claim.settle(exact=True)
        aside = sold.claim(work, batch=True)
        if aside is not None:
            assert not aside.guaranteed
            aside.settle(exact=True)


def test_above_the_guarantee_one_is_as_good_as_others() -> None:
    """What is above the rate is let through up to the most, and not as guaranteed; it leaves the guarantee alone."""
    sold = Sold(guaranteed=0.1, most=1.0)
    claims = [sold.claim(10 * MICROS) for _ in range(6)]
    assert [claim is not None and claim.guaranteed for claim in claims] == [True] * 3 + [False] * 3
    assert sold.claim(10 * MICROS) is None
    sold.clock.now += 100.0
    claims[0].settle(exact=True)  # type: ignore[union-attr]
    again = sold.claim(10 * MICROS)
    assert again is not None
    assert again.guaranteed


def test_a_refusal_says_when() -> None:
    """The limit, what is used and reserved, what this one needs, and the time at which it is let through if nobody
    else comes."""
    sold = Sold(most=1.0)
    first, second = sold.claim(40 * MICROS), sold.claim(10 * MICROS)
    assert first is not None
    assert second is not None
    first.charge(40 * MICROS)
    first.settle(exact=True)
    with pytest.raises(ThroughputExceeded) as refused:
        at_once(sold.throughput.claim(sold.budget, 20 * MICROS))
    assert "60 model units a minute" in str(refused.value)
    assert "40 were used in the last 60 s, and 10 are reserved" in refused.value.evidence
    assert "This one needs about 20." in refused.value.evidence
    assert (refused.value.http_status, sold.throughput.refused) == (429, 1)
    assert refused.value.retry_after_s is not None
    sold.clock.now += refused.value.retry_after_s
    assert sold.claim(20 * MICROS) is not None


def test_one_that_is_more_than_a_minute_goes_alone() -> None:
    """A request that costs more than a whole minute of what was sold is let through when nothing else counts."""
    sold = Sold(guaranteed=0.5, most=1.0)
    small = sold.claim(MICROS)
    assert small is not None
    assert sold.claim(100 * MICROS) is None
    small.settle(exact=True)
    large = sold.claim(100 * MICROS)
    assert large is not None
    assert large.guaranteed
    assert sold.claim(MICROS) is None


@settings(deadline=None)
@given(takes=st.lists(st.tuples(st.floats(0.0, 90.0), st.integers(1, 40 * MICROS)), max_size=50))
def test_the_guarantee_is_its_rate(takes: list[tuple[float, int]]) -> None:
    """What is within the guarantee is in any time at most its rate times that, a minute's worth that was saved, and
    once one request that is more than a minute by itself."""
    guarantee, now, taken = Guarantee(0.25 * MICROS, 0.0), 0.0, 0
    largest = max((work for _, work in takes), default=0)
    for pause_s, work in takes:
        now += pause_s
        taken += work if guarantee.take(work, now) else 0
        assert taken <= 0.25 * MICROS * (now + DEPTH_S) + largest


def needs(body: dict[str, Any], path: str = "/v1/chat/completions") -> list[Any]:
    """What a request may use."""
    return [need_of(path, read_object(msgspec.json.encode(body)))]


def test_what_is_expected_of_a_request() -> None:
    """Its prompt by its size, its answers by what earlier ones were, at most what it allows; each answer by itself."""
    expectation = Expectation()
    chat = {"messages": [{"role": "user", "content": "hi"}]}

    def expected(body: dict[str, Any], path: str = "/v1/chat/completions") -> int:
        return expected_work(CARRIED, needs(body, path), expectation, size_bytes=400, max_model_len=512)

    assert expected(chat) == micros(CARRIED.units(100, START_OUTPUT_TOKENS))
    assert expected(chat | {"max_tokens": 10_000}) == expected(chat)
    assert expected(chat | {"max_tokens": 10}) == micros(CARRIED.units(100, 10))
    reading = CARRIED.units(100, 0)
    thrice = reading + 3 * (CARRIED.units(100, 10) - reading)
    assert expected(chat | {"max_tokens": 10, "n": 3}) == micros(thrice)
    assert expected({"prompt": [[1, 2, 3]], "max_tokens": 5}, "/v1/completions") == micros(CARRIED.units(3, 5))
    assert expected({"input": ["a", "b"]}, "/v1/embeddings") == micros(2 * CARRIED.units(50, 0))
    assert used_work(CARRIED, Usage(100, 30), answers=3) == micros(thrice)
    assert used_work(CARRIED, Usage(100, 0), prompts=2) == micros(2 * CARRIED.units(50, 0))
    expectation.learn(size_bytes=400, prompt_tokens=50, output_tokens=20)
    assert expected(chat) < micros(CARRIED.units(100, START_OUTPUT_TOKENS))


def routed(generation: int, *tenants: float) -> RoutingSnapshot:
    """One endpoint whose deployed models were sold so much at most."""
    models = [
        deployed(
            name=f"d{number}",
            deployment_id="dep",
            provision=ProvisionRoute(carried=CARRIED, guaranteed=most / 2, most=most) if most else None,
        )
        for number, most in enumerate(tenants)
    ]
    endpoint = EndpointRoute(scope=SCOPE, id="e1", display_name="my-endpoint", deployed=tuple(models))
    return RoutingSnapshot(generation=generation, endpoints=(endpoint,))


async def claimed(throughputs: Throughputs, snapshot: RoutingSnapshot, place: int, work: int) -> Claim:
    """A request to one of the deployed models."""
    [endpoint] = snapshot.endpoints
    found = throughputs.of(endpoint, endpoint.deployed[place])
    assert found is not None
    throughput, budget = found
    return await throughput.claim(budget, work)


def test_a_newer_snapshot_keeps_what_is_used(tmp_path: Path) -> None:
    """Limits change, and what was used and is reserved counts on; what is sold no more is forgotten, and nothing is
    kept of what was never sold."""

    async def main() -> None:
        budgets = Budgets(LimitNotes(tmp_path / "snapshot.json"))
        throughputs = Throughputs(budgets)
        first = routed(1, 1.0, 0.0)
        throughputs.follow(first)
        assert len(throughputs) == 1
        [endpoint] = first.endpoints
        assert throughputs.of(endpoint, endpoint.deployed[1]) is None
        ended = await claimed(throughputs, first, 0, 20 * MICROS)
        under_way = await claimed(throughputs, first, 0, 30 * MICROS)
        ended.begin()
        ended.charge(25 * MICROS)
        ended.settle(exact=True)
        second = routed(2, 2.0, 1.0)
        throughputs.follow(second)
        assert throughputs.per_minute() == {"dep": 25.0}
        assert throughputs.waiting() == {"dep": 30.0}
        await claimed(throughputs, second, 0, 65 * MICROS)
        with pytest.raises(ThroughputExceeded):
            await claimed(throughputs, second, 0, MICROS)
        under_way.settle(exact=True)
        await claimed(throughputs, second, 0, 30 * MICROS)
        throughputs.follow(routed(3, 0.0, 1.0))
        assert [each.deployed_id for each in throughputs] == ["d1"]
        throughputs.follow(second)
        await claimed(throughputs, second, 0, 120 * MICROS)
        throughputs.follow(RoutingSnapshot(generation=4))
        assert len(throughputs) == 0
        assert not budgets._budgets
        budgets.close()

    asyncio.run(main())


def test_a_gateway_that_takes_over_knows_what_was_used(tmp_path: Path) -> None:
    """What a gateway that drains has given away of a tenant's throughput the next one does not give away again."""

    async def main() -> None:
        snapshot = routed(1, 1.0)
        old, new = (Budgets(LimitNotes(tmp_path / "snapshot.json")) for _ in range(2))
        before, after = Throughputs(old), Throughputs(new)
        before.follow(snapshot)
        await claimed(before, snapshot, 0, 50 * MICROS)
        old.hand_over()
        after.follow(snapshot)
        with pytest.raises(ThroughputExceeded):
            await claimed(after, snapshot, 0, 20 * MICROS)
        old.close()
        new.close()

    asyncio.run(main())


def test_several_gateways_share_it(tmp_path: Path) -> None:
    """Leases divide a tenant's throughput as they do a key's limit: all gateways together let no more through."""

    async def main() -> None:
        snapshot, ledger = routed(1, 1.0), LeaseLedger(2)
        ledger.follow((), work_limits(snapshot.endpoints))
        crew = []
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            notes = LimitNotes(folder / "snapshot.json")
            leases = Leases(folder / "leases.json", run="run", note=notes.name)
            budgets = Budgets(notes, leases=leases)
            throughputs = Throughputs(budgets)
            throughputs.follow(snapshot)
            crew.append((number, leases, budgets, throughputs))

        async def agree() -> None:
            while True:
                for number, leases, *_ in crew:
                    leases.take(ledger.report(number, leases.report()))
                await asyncio.sleep(0.001)

        agreeing = asyncio.create_task(agree())
        began, given = time.monotonic(), 0
        for turn in range(12):
            with contextlib.suppress(ThroughputExceeded):
                await claimed(crew[turn // 6][3], snapshot, 0, 10 * MICROS)
                given += 10 * MICROS
        agreeing.cancel()
        if time.monotonic() - began < WINDOW_S:
            assert given == 60 * MICROS
        for *_, budgets, _ in crew:
            budgets.close()

    asyncio.run(main())


def test_a_tenant_is_no_key() -> None:
    """A deployed model's name among limits is of its endpoint, and cannot be a key's id."""
    [endpoint] = routed(1, 1.0).endpoints
    tenant = tenant_of(endpoint, endpoint.deployed[0])
    assert tenant == f"{SCOPE}/endpoints/e1/deployedModels/d0"
    assert work_limits([endpoint]) == {tenant: KeyLimits(tokens_per_minute=60 * MICROS)}
