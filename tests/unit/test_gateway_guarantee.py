"""A tenant within its guarantee: not refused, before everybody else, and begun at once whoever holds the places."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_serving import BASE, CHAT, EVERYWHERE_KEY, Served, deployed, gateway_before, pieces_of, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from test_gateway_admission import room, settle
from test_gateway_budget import Clock
from test_gateway_priorities import Caller, quiet, send_home
from test_gateway_throughput import CARRIED
from test_gateway_zero import status, until

from headrace.gateway.drain_rate import DrainRate
from headrace.gateway.fair_queue import Visit
from headrace.gateway.kept_places import REMEMBERED_S, SPREAD, KeptPlaces, own_places, places_of
from headrace.resources.errors import QueueFull
from headrace.resources.priority import Priority
from headrace.resources.profiles import Carried, Cost
from headrace.resources.snapshot import MOST_RUNNING, DeployedRoute, ProvisionRoute
from standin import Script, StandIn

GUARANTEED, INTERACTIVE, BATCH = Priority.GUARANTEED, Priority.INTERACTIVE, Priority.BATCH
DEPLOYMENT = "dep-d1"
UNIT_A_TOKEN = Cost(prompt=1.0, prompt_squared=0.0, step=0.0, sequence=1.0, context=0.0)


def sold(guaranteed: float, most: float, *, concurrency: int = 4, cost: Cost = CARRIED.cost) -> ProvisionRoute:
    """A throughput of a replica that carries so many requests at a time."""
    carried = Carried(cost=cost, concurrency=concurrency, first_s=1.0, gap_s=0.1)
    return ProvisionRoute(carried=carried, guaranteed=guaranteed, most=most)


def shared(engine: StandIn, **provisions: ProvisionRoute | None) -> list[DeployedRoute]:
    """Deployed models of these names on one deployment."""
    one = deployed(engine.address)
    return [
        replace(one, id=name, traffic=0 if number else 100, provision=provision)
        for number, (name, provision) in enumerate(provisions.items())
    ]


async def ask(served: Served, tenant: str, **more: Any) -> httpx.Response:
    """A chat with one of the deployed models."""
    url = f"{BASE}/deployedModels/{tenant}/invoke/chat/completions"
    body = CHAT | {"messages": [{"role": "user", "content": tenant}]} | more
    return await served.client.post(url, json=body)


def asked(engine: StandIn) -> str:
    """Whose requests the engine got, in their order."""
    return "".join(body["messages"][0]["content"] for body in engine.seen.bodies)


def test_a_guaranteed_request_begins_although_others_hold_all_places(tmp_path: Path) -> None:
    """Others fill what the replica carries; a tenant within its guarantee is let in at once all the same, and from then
    on its places are kept: who leaves is followed by nobody else before there is room beside them."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(gated=True)
            models = shared(engine, a=sold(0.5, 1.0), b=None)
            async with gateway_before(tmp_path, *models) as served:
                flood = [asyncio.create_task(ask(served, "b")) for _ in range(20)]
                await engine.until(began=4)
                await until(served, lambda told: told["waiting"] == {DEPLOYMENT: 16})
                first = asyncio.create_task(ask(served, "a", standin={"gated": False}))
                assert (await first).status_code == 200
                assert asked(engine) == "bbbba"
                held = asyncio.create_task(ask(served, "a"))
                await engine.until(began=6)
                assert asked(engine) == "bbbbaa"
                for _ in range(20 + 1):
                    engine.gate.release()
                assert {answer.status_code for answer in await asyncio.gather(held, *flood)} == {200}

    asyncio.run(main())


def test_a_flood_does_not_refuse_a_guaranteed_request(tmp_path: Path) -> None:
    """A full line makes room for it; one of the flood is told that others needed the place."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(gated=True)
            models = [replace(each, max_waiting=2) for each in shared(engine, a=sold(0.25, 1.0), b=None)]
            async with gateway_before(tmp_path, *models) as served:
                flood = [asyncio.create_task(ask(served, "b")) for _ in range(4)]
                await engine.until(began=4)
                flood += [asyncio.create_task(ask(served, "b")) for _ in range(2)]
                await until(served, lambda told: told["waiting"] == {DEPLOYMENT: 2})
                theirs = [asyncio.create_task(ask(served, "a")) for _ in range(own_places(0.25 * 4))]
                await engine.until(began=4 + len(theirs))
                theirs.append(asyncio.create_task(ask(served, "a")))
                done, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
                [refused] = [task.result() for task in done]
                assert (refused.status_code, "a guaranteed request" in refused.text) == (429, True)
                assert (await status(served))["waiting"] == {DEPLOYMENT: 2}
                for _ in range(len(theirs) + 5):
                    engine.gate.release()
                assert {answer.status_code for answer in await asyncio.gather(*theirs)} == {200}
                await asyncio.gather(*flood)

    asyncio.run(main())


def test_above_the_most_there_is_a_time(tmp_path: Path) -> None:
    """429 with the numbers and `Retry-After`; what was used is what the engine counted, and control hears of it."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            models = shared(engine, a=sold(0.0, 0.5, cost=UNIT_A_TOKEN))
            async with gateway_before(tmp_path, *models) as served:
                first = await ask(served, "a", max_tokens=3)
                assert first.status_code == 200
                await until(served, lambda told: told["work_per_minute"] == {DEPLOYMENT: 7.0 + 3.0})
                await ask(served, "a", max_tokens=3)
                await until(served, lambda told: told["work_per_minute"] == {DEPLOYMENT: 2 * (7.0 + 3.0)})
                refused = await ask(served, "a", max_tokens=25)
                assert refused.status_code == 429
                error = refused.json()["error"]
                assert "THROUGHPUT_EXCEEDED" in refused.text
                assert "30 model units a minute" in error["message"]
                assert 0 < int(refused.headers["retry-after"]) <= 61
                found = await served.client.get("/metrics", headers={"authorization": f"Bearer {EVERYWHERE_KEY}"})
                samples = {
                    (sample.name, sample.labels.get("kind") or sample.labels.get("class")): sample.value
                    for family in text_string_to_metric_families(found.text)
                    for sample in family.samples
                    if "provisioned" in sample.name
                }
                prefix = "headrace_gateway_provisioned"
                assert samples[f"{prefix}_units", "most"] == 30.0
                assert samples[f"{prefix}_units", "used"] == 20.0
                assert samples[f"{prefix}_units", "reserved"] == 0.0
                assert samples[f"{prefix}_units_used_total", "shared"] == 20.0
                assert samples[f"{prefix}_refused_total", None] == 1.0

    asyncio.run(main())


def test_what_waits_is_told_as_work(tmp_path: Path) -> None:
    """Control hears the work of what stands in line, and of what runs, each once; of a client that leaves nothing."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(gated=True)
            models = shared(engine, a=sold(0.0, 100.0, concurrency=1, cost=UNIT_A_TOKEN))
            async with gateway_before(tmp_path, *models) as served:
                tasks = [asyncio.create_task(ask(served, "a", max_tokens=5))]
                await engine.until(began=1)
                one = (await status(served))["work_per_minute"][DEPLOYMENT]
                assert one > 5.0
                tasks += [asyncio.create_task(ask(served, "a", max_tokens=5)) for _ in range(2)]
                await until(served, lambda told: told["work_waiting"] == {DEPLOYMENT: pytest.approx(2 * one)})
                assert (await status(served))["work_per_minute"] == {DEPLOYMENT: one}
                tasks.pop().cancel()
                await until(served, lambda told: told["work_waiting"] == {DEPLOYMENT: pytest.approx(one)})
                for _ in range(2):
                    engine.gate.release()
                await asyncio.gather(*tasks)
                await until(served, lambda told: told["work_per_minute"] == {DEPLOYMENT: 2 * (7.0 + 3.0)})
                assert (await status(served))["work_waiting"] == {}

    asyncio.run(main())


def test_who_is_sent_away_is_told_as_work(tmp_path: Path) -> None:
    """Control hears of what the line had no place for, although it was sold: more replicas would have done it."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(gated=True)
            models = shared(engine, a=sold(0.0, 100.0, concurrency=1, cost=UNIT_A_TOKEN))
            models = [replace(one, max_waiting=0) for one in models]
            async with gateway_before(tmp_path, *models) as served:
                first = asyncio.create_task(ask(served, "a", max_tokens=5))
                await engine.until(began=1)
                one = (await status(served))["work_per_minute"][DEPLOYMENT]
                assert QueueFull.code in (await ask(served, "a", max_tokens=5)).text
                assert (await status(served))["work_per_minute"] == {DEPLOYMENT: pytest.approx(2 * one)}
                engine.gate.release()
                await first

    asyncio.run(main())


def test_what_nobody_counted_costs_what_was_expected(tmp_path: Path) -> None:
    """A client that hangs up in the middle is charged what its request was expected to be; a refusal of the engine
    nothing."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            models = shared(engine, a=sold(0.0, 100.0, cost=UNIT_A_TOKEN))
            async with gateway_before(tmp_path, *models) as served:
                refused = await ask(served, "a", standin={"refuse": 400})
                assert refused.status_code == 400
                await until(served, lambda told: told["work_per_minute"] == {DEPLOYMENT: 0.0})
                hangs = asyncio.create_task(ask(served, "a", standin={"hang": True}, max_tokens=5))
                await engine.until(began=2)
                expected = (await status(served))["work_per_minute"][DEPLOYMENT]
                hangs.cancel()
                await engine.until(cancelled=1)
                await until(served, lambda told: not told["outstanding"])
                assert (await status(served))["work_per_minute"] == {DEPLOYMENT: expected}

    asyncio.run(main())


def test_a_stream_is_charged_by_its_usage(tmp_path: Path) -> None:
    """Streams tell their usage at the end; several instances of one request are charged together."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            models = shared(engine, a=sold(0.0, 100.0, cost=UNIT_A_TOKEN))
            async with gateway_before(tmp_path, *models) as served:
                async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}) as it:
                    _, whole = await pieces_of(it)
                assert whole
                await until(served, lambda told: told["work_per_minute"] == {DEPLOYMENT: 7.0 + 3.0})
                prompts = {"instances": [{"prompt": "a"}, {"prompt": "b"}]}
                assert (await served.client.post(f"{BASE}:predict", json=prompts)).status_code == 200
                await until(served, lambda told: told["work_per_minute"] == {DEPLOYMENT: 3 * (7.0 + 3.0)})
                tokens = await served.client.post("/tokenize", json={"model": "my-endpoint", "prompt": "hi"})
                assert tokens.status_code == 200
                assert (await status(served))["work_per_minute"] == {DEPLOYMENT: 3 * (7.0 + 3.0)}

    asyncio.run(main())


def test_a_request_that_moves_takes_its_claim_along(tmp_path: Path) -> None:
    """What it claimed of the deployed model that is gone is let go, and the other one's throughput is charged."""

    async def main() -> None:
        async with StandIn(tmp_path / "e1") as old, StandIn(tmp_path / "e2") as new:
            old.script = Script(gated=True)
            first = deployed(old.address, provision=sold(0.0, 100.0, concurrency=1, cost=UNIT_A_TOKEN))
            second = deployed(
                new.address, name="d2", traffic=0, provision=sold(0.0, 200.0, concurrency=1, cost=UNIT_A_TOKEN)
            )
            async with gateway_before(tmp_path, first, second) as served:
                url = f"{BASE}/chat/completions"
                running = asyncio.create_task(served.client.post(url, json=CHAT))
                await old.until(began=1)
                waiting = asyncio.create_task(served.client.post(url, json=CHAT))
                await until(served, lambda told: told["waiting"] == {DEPLOYMENT: 1})
                await served.push(snapshot(replace(second, traffic=100), generation=2))
                assert (await waiting).status_code == 200
                await until(served, lambda told: told["work_per_minute"] == {"dep-d2": 7.0 + 3.0})
                assert (await status(served))["work_waiting"] == {}
                old.gate.release()
                assert (await running).status_code == 200

    asyncio.run(main())


def test_places_are_what_a_replica_carries() -> None:
    """Of several gateways each has its share; without anything sold it is what engines take."""
    assert places_of(MOST_RUNNING, []) == MOST_RUNNING
    assert places_of(MOST_RUNNING, [sold(0.5, 1.0, concurrency=24)]) == 24
    assert places_of(MOST_RUNNING // 3, [sold(0.5, 1.0, concurrency=24)]) == 8
    assert places_of(MOST_RUNNING // 4, [sold(0.5, 1.0, concurrency=1)]) == 1
    assert places_of(3, [sold(0.5, 1.0, concurrency=1000)]) == 3


@given(mean=st.floats(0.25, 200.0))
def test_a_tenants_own_places_are_seldom_too_few(mean: float) -> None:
    """Where requests come at random as often as was sold, more than that many run in less than a hundredth of the time:
    Poisson's distribution, whose mean is by Little's law what the guarantee is of the replica's concurrency."""
    places = own_places(mean)
    within = math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(places + 1))
    assert 1 - within < 0.01
    assert places <= mean + SPREAD * math.sqrt(mean) + 1


def test_a_tenant_that_is_away_keeps_nobody_out() -> None:
    """Places are kept by what ran lately, and one more; at most the average; and are forgotten after a while."""
    clock = Clock()
    kept = KeptPlaces(clock)
    kept.follow({"a": 4.0, "b": 2.5}, 10)
    assert kept.kept() == 0
    kept.enter("a")
    assert kept.kept() == 2
    for _ in range(6):
        kept.enter("a")
    kept.enter("b")
    assert kept.kept() == 6
    for name in "aaaaaaab":
        kept.leave(name)
    assert kept.kept() == 6
    clock.now += REMEMBERED_S
    assert kept.kept() == 6
    clock.now += REMEMBERED_S
    assert (kept.kept(), kept.running, len(kept)) == (0, 0, 2)
    kept.follow({}, 10)
    assert len(kept) == 0


def test_others_begin_one_after_the_other() -> None:
    """While a tenant is there the next one of the others begins when the prompts before it are read; while none is
    there nobody has to wait for that."""

    async def main() -> None:
        clock = Clock()
        places, order = room(max_running=8, max_waiting=100), list[Caller]()
        places._kept = KeptPlaces(clock)
        places.keep({"a": 1.0}, lambda tokens: tokens / 100)
        others = [Caller(places, Visit("key", prompt_tokens=50), order) for _ in range(2)]
        await settle()
        theirs = Caller(places, Visit("a", GUARANTEED, prompt_tokens=200), order)
        await settle()
        assert [caller.inside for caller in (*others, theirs)] == [True] * 3
        others += [Caller(places, Visit("key", prompt_tokens=50), order) for _ in range(2)]
        await settle()
        clock.now += 2.75
        places._look()
        await settle()
        assert [caller.inside for caller in others] == [True, True, False, False]
        clock.now += 0.5
        places._look()
        await settle()
        assert [caller.inside for caller in others] == [True, True, True, False]
        again = Caller(places, Visit("a", GUARANTEED, prompt_tokens=200), order)
        await settle()
        assert again.inside
        for caller in (theirs, again):
            caller.leave.set()
        await settle()
        assert not others[-1].inside
        for _ in range(2):
            clock.now += REMEMBERED_S
            places._look()
        await settle()
        assert others[-1].inside
        await send_home([*others, theirs, again])

    asyncio.run(main())


def test_where_replicas_are_missing_everybody_has_fewer() -> None:
    """Half of the places are half of each tenant's; without any nobody begins."""
    kept = KeptPlaces(Clock())
    kept.follow({"a": 4.0, "b": 4.0}, 4)
    for name in "ab":
        for _ in range(own_places(2.0)):
            assert kept.is_free(name)
            kept.enter(name)
        assert not kept.is_free(name)
    assert kept.kept() == 4
    kept.follow({"a": 4.0, "b": 4.0}, 0)
    assert not kept.is_free("a")


def test_tenants_take_turns() -> None:
    """A tenant's burst beyond its own places waits, and keeps no other tenant waiting for its own."""

    async def main() -> None:
        places, order = room(max_running=4, max_waiting=100), list[Caller]()
        places.keep({"a": 1.0, "b": 1.0})
        others = [Caller(places, Visit("key"), []) for _ in range(4)]
        await settle()
        burst = [Caller(places, Visit("a", GUARANTEED), order) for _ in range(10)]
        await settle()
        assert sum(caller.inside for caller in burst) == own_places(1.0) == 6
        theirs = [Caller(places, Visit("b", GUARANTEED), order) for _ in range(2)]
        await settle()
        assert all(caller.inside for caller in theirs)
        over = await send_home([*others, *burst, *theirs])
        assert not any(over)

    asyncio.run(main())


def test_retry_after_counts_who_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guaranteed request waits for those of its class alone; everybody else for them, too."""
    monkeypatch.setattr(DrainRate, "per_s", lambda *_: 0.5)

    async def main() -> None:
        places = room(max_running=1, max_waiting=100)
        places.keep({"a": 0.25})
        visits = [Visit("a", GUARANTEED) for _ in range(own_places(0.25) + 3)]
        callers = [Caller(places, visit, []) for visit in [Visit(), *visits, Visit(), Visit()]]
        await settle()
        assert places.retry_after_s(GUARANTEED) == (3 + 1) / 0.5
        assert places.retry_after_s(INTERACTIVE) == (3 + 2 + 1) / 0.5
        await send_home(callers)

    asyncio.run(main())


def test_a_guaranteed_request_is_never_sent_away_for_room() -> None:
    """However long its line; lower classes go, batch first, and then nobody has to."""

    async def main() -> None:
        places, order = room(max_running=1, max_waiting=2), list[Caller]()
        places.keep({"a": 0.25})
        lower = [Caller(places, Visit("key", each), order) for each in (INTERACTIVE, INTERACTIVE, BATCH)]
        await settle()
        theirs = [Caller(places, Visit("a", GUARANTEED), order) for _ in range(9)]
        await settle()
        assert sum(caller.waits for caller in theirs) == 9 - own_places(0.25)
        assert [caller.task.done() for caller in lower] == [False, True, True]
        over = await send_home([*lower, *theirs])
        assert [type(one) for one in over] == [type(None), QueueFull, QueueFull] + [type(None)] * 9

    asyncio.run(main())


MEANS = {"a": 1.0, "b": 0.5}
PLACES = 3


class TheGuarantee(RuleBasedStateMachine):
    """Whatever tenants and others come, leave, hang up, and replicas come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.places = room(max_running=PLACES, max_waiting=6)
        self.places._kept = KeptPlaces(self.clock)
        self.places.keep(MEANS)
        self.callers: list[Caller] = []

    def go_on(self) -> None:
        """Let everybody notice what happened."""
        self.loop.run_until_complete(quiet())

    @rule(
        who=st.sampled_from(
            [("a", GUARANTEED), ("b", GUARANTEED), ("gone", GUARANTEED), ("x", INTERACTIVE), ("y", BATCH)]
        )
    )
    def come(self, who: tuple[str, Priority]) -> None:
        """Somebody comes."""

        async def come() -> None:
            self.callers.append(Caller(self.places, Visit(*who), []))

        self.loop.run_until_complete(come())
        self.go_on()

    @rule(n=st.integers(0, 30), hangs_up=st.booleans())
    def leave(self, n: int, hangs_up: bool) -> None:
        """Somebody leaves, waiting or not."""
        if self.callers:
            caller = self.callers[n % len(self.callers)]
            _ = caller.task.cancel() if hangs_up else caller.leave.set()
            self.go_on()

    @rule(n=st.integers(0, 4))
    def resize(self, n: int) -> None:
        """Replicas come and go."""

        async def resize() -> None:
            self.places.resize(max_running=n, max_waiting=6, max_wait_s=60)
            self.places.keep(MEANS)

        self.loop.run_until_complete(resize())
        self.go_on()

    @rule(seconds=st.sampled_from([1.0, REMEMBERED_S, 3 * REMEMBERED_S]))
    def wait(self, seconds: float) -> None:
        """Time passes, and the room looks at who waits."""

        async def look() -> None:
            self.places._look()

        self.clock.now += seconds
        self.loop.run_until_complete(look())
        self.go_on()

    def inside(self, name: str) -> int:
        """Who runs of a tenant, or of a key."""
        return sum(caller.inside for caller in self.callers if caller.visit.key_id == name)

    @invariant()
    def nobody_is_kept_out(self) -> None:
        """A tenant waits only where its own places are taken and no other is free; others only where what is left
        beside the kept places is taken; all adds up, and nobody is remembered who is not there."""
        places, most = self.places, self.places.max_running
        assert places.running == sum(caller.inside for caller in self.callers)
        assert places._kept.running == sum(map(self.inside, ("a", "b", "gone")))
        there = min(1.0, most / sum(MEANS.values()))
        for name, mean in MEANS.items():
            if most and any(caller.waits for caller in self.callers if caller.visit.key_id == name):
                assert self.inside(name) >= own_places(mean * there)
                assert places.running >= most
        others = self.inside("x") + self.inside("y")
        if any(caller.waits for caller in self.callers if caller.visit.priority is not GUARANTEED):
            assert places.running >= most or others >= most - places._kept.kept()
        assert places._kept.kept() <= math.ceil(sum(MEANS.values()))
        assert len(places._kept) <= len(MEANS) + 1

    def teardown(self) -> None:
        """Everybody who stayed gets a place, and at the end nobody is left."""

        async def end() -> None:
            self.places.resize(max_running=100, max_waiting=6, max_wait_s=60)
            over = await send_home(self.callers)
            assert all(one is None or isinstance(one, asyncio.CancelledError | QueueFull) for one in over), over
            assert not any(
                isinstance(one, QueueFull) and caller.visit.priority is GUARANTEED
                for one, caller in zip(over, self.callers, strict=True)
            )

        self.loop.run_until_complete(end())
        self.loop.close()
        assert (self.places.running, self.places.waiting, self.places._kept.running) == (0, 0, 0)


TestTheGuarantee = TheGuarantee.TestCase
TestTheGuarantee.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
