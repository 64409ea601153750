"""Two classes in one line: interactive first, batch never starved, neither a class nor a key crowds others out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gateway_serving import BASE, CHAT, KEY, KEYS, Served, deployed, gateway_before, key, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from test_gateway_admission import place, room, settle
from test_gateway_zero import NAME, URL, until

from headrace.contracts.openai.priority import priority_of as openai_priority
from headrace.contracts.openai.requests import read_object
from headrace.contracts.openai.usage import Usage
from headrace.contracts.vertex.priority import priority_of as vertex_priority
from headrace.gateway.drain_rate import DrainRate
from headrace.gateway.fair_queue import REMEMBERED_KEYS, FairQueue, Visit
from headrace.gateway.waiting_room import BATCH_TURN, WaitingRoom
from headrace.resources.errors import BadField, QueueFull
from headrace.resources.priority import Priority
from standin import Script, StandIn

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH
SHARED = "x-vertex-ai-llm-shared-request-type"


class Caller:
    """Somebody who takes a place, and notes when it has it."""

    def __init__(self, places: WaitingRoom, visit: Visit, order: list[Caller]) -> None:
        self.visit = visit
        self.leave = asyncio.Event()
        self.inside = False
        self._places, self._order = places, order
        self.task = asyncio.get_running_loop().create_task(self._stay())

    async def _stay(self) -> None:
        async with place(self._places, self.visit):
            self.inside = True
            self._order.append(self)
            try:
                await self.leave.wait()
                self.visit.used = Usage(self.visit.prompt_tokens, 7)
            finally:
                self.inside = False

    @property
    def waits(self) -> bool:
        """Whether it stands in line."""
        return not self.inside and not self.task.done()


async def send_home(callers: list[Caller]) -> list[BaseException | None]:
    """Let all of them leave, those who wait as soon as they are in; what each came to."""
    for caller in callers:
        caller.leave.set()
    return await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)


COMERS = st.lists(st.sampled_from(["interactive", "batch", "leave"]), max_size=80)


@settings(deadline=None)
@given(moves=COMERS)
def test_who_is_next(moves: list[str]) -> None:
    """A batch request is let in past interactive ones only after nine of those went past it, and then at once."""

    async def main() -> None:
        places, callers, order = room(max_waiting=100), list[Caller](), list[Caller]()
        passed = 0
        for move in moves:
            before = {priority: sum(c.waits for c in callers if c.visit.priority is priority) for priority in Priority}
            inside = [caller for caller in callers if caller.inside]
            if move != "leave":
                callers.append(Caller(places, Visit(priority=Priority(move)), order))
            elif inside:
                inside[0].leave.set()
            await settle()
            if move != "leave" or not inside or not sum(before.values()):
                continue
            let_in = order[-1].visit.priority
            if let_in is BATCH:
                assert not before[INTERACTIVE] or passed == BATCH_TURN - 1
                passed = 0
            else:
                assert not before[BATCH] or passed < BATCH_TURN - 1
                passed += bool(before[BATCH])
        assert all(one is None for one in await send_home(callers))

    asyncio.run(main())


def test_batch_gets_every_tenth_turn() -> None:
    """While both wait, nine turns are interactive and one is batch, however long the lines are."""

    async def main() -> None:
        places, order = room(max_waiting=100), list[Caller]()
        holder = Caller(places, Visit(), [])
        await settle()
        batch = [Caller(places, Visit(priority=BATCH), order) for _ in range(4)]
        await settle()
        interactive = [Caller(places, Visit(), order) for _ in range(30)]
        await settle()
        assert all(one is None for one in await send_home([holder, *batch, *interactive]))
        turns = "".join(caller.visit.priority[0] for caller in order)
        assert turns == 3 * ("i" * 9 + "b") + "iii" + "b"

    asyncio.run(main())


def test_interactive_takes_the_place_of_batch() -> None:
    """Batch may fill the line, but keeps no interactive request out: who came last of the key that holds most goes."""

    async def main() -> None:
        places, order = room(max_waiting=4), list[Caller]()
        holder = Caller(places, Visit(), order)
        await settle()
        batch = [Caller(places, Visit(key_id, BATCH), order) for key_id in "aaab"]
        await settle()
        assert places.waiting == 4
        interactive = [Caller(places, Visit("c"), order) for _ in range(4)]
        await settle()
        assert places.waiting == 4
        assert [caller.waits for caller in batch] == [False] * 4
        with pytest.raises(QueueFull) as pushed_out:
            await batch[2].task
        assert "this is a batch request" in str(pushed_out.value)
        assert "1 are running and 4 of at most 4 are waiting, 4 of them batch." in pushed_out.value.evidence
        assert pushed_out.value.retry_after_s is not None
        refused = Caller(places, Visit("c"), order)
        late = Caller(places, Visit("d", BATCH), order)
        await settle()
        over = await send_home([holder, *interactive, refused, late, *batch])
        assert [type(one) for one in over] == [type(None)] * 5 + [QueueFull] * 6

    asyncio.run(main())


@pytest.mark.parametrize("priority", [INTERACTIVE, BATCH])
def test_one_key_does_not_fill_the_line(priority: Priority) -> None:
    """A full line makes room for a key that holds fewer places than another, until they hold as many."""

    async def main() -> None:
        places, order = room(max_waiting=4), list[Caller]()
        holder = Caller(places, Visit(), [])
        await settle()
        busy = [Caller(places, Visit("busy", priority), order) for _ in range(5)]
        await settle()
        others = [Caller(places, Visit("other", priority), order) for _ in range(3)]
        await settle()
        waits = [caller.waits for caller in (*busy, *others)]
        assert waits == [True, True, False, False, False, True, True, False]
        over = await send_home([holder, *busy, *others])
        assert [type(one) for one in over[1:]] == [QueueFull if not stays else type(None) for stays in waits]
        assert "another key" in str(over[3])
        assert "another key" not in str(over[5])
        assert [caller.visit.key_id[0] for caller in order] == ["b", "o", "b", "o"]

    asyncio.run(main())


def test_retry_after_is_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interactive request comes back when those before it are served; a batch one when all of them are."""
    monkeypatch.setattr(DrainRate, "per_s", lambda *_: 0.5)

    async def main() -> None:
        places = room(max_waiting=100)
        callers = [Caller(places, Visit(), [])]
        await settle()
        callers += [Caller(places, Visit(priority=priority), []) for priority in [INTERACTIVE] * 9 + [BATCH] * 3]
        await settle()
        assert places.retry_after_s(INTERACTIVE) == (9 + 1 + 1) / 0.5
        assert places.retry_after_s(BATCH) == (9 + 3 + 1) / 0.5
        await send_home(callers)
        assert places.retry_after_s(BATCH) == 1 / 0.5

    asyncio.run(main())


def test_drain_rate_counts_what_left_a_line() -> None:
    """Only departures since the line began to form count, and the last of them; before two, those of the last line."""
    rate = DrainRate()
    rate.begin(0.0)
    rate.departed(1.0)
    assert rate.per_s(1.0) is None
    rate.departed(2.0)
    assert rate.per_s(4.0) == 2 / 4
    rate.begin(1000.0)
    assert rate.per_s(1000.0) == 2 / 1000
    for n in range(200):
        rate.departed(1001.0 + n)
    assert rate.per_s(1200.0) == 1.0


def test_what_asks_for_batch() -> None:
    """OpenAI's `service_tier`, vLLM's `priority` and Vertex AI's header say it; an unknown value is refused by name."""

    def asked(body: dict[str, Any], *, strict: bool = True) -> Priority:
        return openai_priority(read_object(json.dumps(body).encode()), strict=strict)

    assert asked({"service_tier": "flex"}) is asked({"priority": 3}) is BATCH
    for tier in ("auto", "default", "scale", "priority", "fast", None):
        assert asked({"service_tier": tier}) is INTERACTIVE
    for rank in (0, -4, None):
        assert asked({"priority": rank}) is INTERACTIVE
    for body in ({"service_tier": "batch"}, {"service_tier": 1}, {"service_tier": {}}, {"priority": "low"}):
        with pytest.raises(BadField, match=f"`{next(iter(body))}`"):
            asked(body)
        assert asked(body, strict=False) is INTERACTIVE
    for boolean in (True, False):
        with pytest.raises(BadField, match="`priority`"):
            asked({"priority": boolean})
    assert vertex_priority(b"Flex") is BATCH
    assert vertex_priority(b"priority") is vertex_priority(None) is INTERACTIVE
    with pytest.raises(BadField, match="Shared-Request-Type"):
        vertex_priority(b"dedicated")


async def ask(served: Served, text: str, *, headers: dict[str, str] | None = None, **more: Any) -> int:
    """The status of one chat whose message is this text."""
    body = CHAT | {"messages": [{"role": "user", "content": text}]} | more
    return (await served.client.post(URL, json=body, headers=headers)).status_code


def test_requests_wait_in_their_class(tmp_path: Path) -> None:
    """Whichever way a request asks for batch, one that came later and did not ask is answered first."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(gated=True)
            async with gateway_before(tmp_path, deployed(engine.address, max_running=1)) as served:
                asked = [asyncio.create_task(ask(served, "first"))]
                await engine.until(began=1)
                ways: list[dict[str, Any]] = [{"service_tier": "flex"}, {"priority": 1}, {"headers": {SHARED: "flex"}}]
                for n, way in enumerate([*ways, {}], 1):
                    asked.append(asyncio.create_task(ask(served, f"{way}", **way)))
                    await until(served, lambda told, n=n: told["waiting"] == {NAME: n})
                for n in range(1, 6):
                    await engine.until(began=n)
                    engine.gate.release()
                assert set(await asyncio.gather(*asked)) == {200}
                order = [body["messages"][0]["content"] for body in engine.seen.bodies]
                assert order == ["first", "{}", *map(str, ways)]
                assert await ask(served, "x", service_tier="cheap") == 400
                assert await ask(served, "x", headers={SHARED: "cheap"}) == 400
                refused = await served.client.post(URL, json=CHAT | {"service_tier": "cheap"})
                assert '"cheap"' in refused.json()["error"]["details"][0]["metadata"]["evidence"]

    asyncio.run(main())


def test_keys_take_turns(tmp_path: Path) -> None:
    """One key's line does not keep another key waiting; and who has left is not remembered."""

    async def main() -> None:
        theirs = {"authorization": "Bearer hr-colleague"}
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(gated=True)
            model = deployed(engine.address, max_running=1)
            async with gateway_before(tmp_path, model) as served:
                await served.push(snapshot(model, generation=2, keys=(*KEYS, key("hr-colleague"))))
                asked = [asyncio.create_task(ask(served, "first"))]
                await engine.until(began=1)
                for n, who in enumerate("mmmt", 1):
                    asked.append(asyncio.create_task(ask(served, who, headers=theirs if who == "t" else None)))
                    await until(served, lambda told, n=n: told["waiting"] == {NAME: n})
                for n in range(1, 6):
                    await engine.until(began=n)
                    engine.gate.release()
                assert set(await asyncio.gather(*asked)) == {200}
                assert [body["messages"][0]["content"] for body in engine.seen.bodies] == ["first", "t", "m", "m", "m"]
                await until(served, lambda told: not told["outstanding"])
                assert interactive_line(served).keys == 0

    asyncio.run(main())


def interactive_line(served: Served) -> FairQueue:
    """The line of interactive requests before the one deployment."""
    return served.gateway._routing.fleet.pools[NAME].room._lines[INTERACTIVE]


def test_a_key_is_charged_what_the_engine_counted(tmp_path: Path) -> None:
    """The estimate gives way to the engine's count; a refusal costs nothing; so does an engine that is not there."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), noticed_s=0.0) as served,
        ):
            stays = asyncio.create_task(ask(served, "stays", standin={"gated": True}))
            await engine.until(began=1)

            async def charged_for(status: int, **script: Any) -> int:
                before = interactive_line(served).served(f"id-{KEY}")
                assert await ask(served, "goes", standin=script) == status
                await until(served, lambda told: told["outstanding"] == {"d1-r0": 1})
                after = interactive_line(served).served(f"id-{KEY}")
                assert before is not None
                assert after is not None
                return after - before

            assert await charged_for(200, chunks=5) == 7 + 2 * 5
            assert await charged_for(400, refuse=400) == 0
            assert await charged_for(503, die_after=0) == 0
            prompts = {"instances": [{"prompt": "a"}, {"prompt": "b"}]}
            before = interactive_line(served).served(f"id-{KEY}") or 0
            assert (await served.client.post(f"{BASE}:predict", json=prompts)).status_code == 200
            await until(served, lambda told: told["outstanding"] == {"d1-r0": 1})
            assert interactive_line(served).served(f"id-{KEY}") == before + 2 * (7 + 2 * 3)
            engine.gate.release()
            assert await stays == 200

    asyncio.run(main())


async def quiet() -> None:
    """Let everybody go who can, one after the other."""
    for _ in range(40):
        await asyncio.sleep(0)


class TheRoom(RuleBasedStateMachine):
    """Whatever comes, leaves, hangs up and is resized, at once or one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.places = room(max_running=2, max_waiting=5)
        self.callers: list[Caller] = []
        self.order: list[Caller] = []
        self.most_running = 2
        self.settled = True

    def go_on(self, hasty: bool) -> None:
        """Let everybody notice what happened; or not yet, so that more happens in the same moment."""
        self.settled = not hasty
        if self.settled:
            before = sum(caller.inside for caller in self.callers)
            self.loop.run_until_complete(quiet())
            assert sum(caller.inside for caller in self.callers) <= max(before, self.most_running)
            self.most_running = self.places.max_running

    @rule(
        key_id=st.sampled_from("abc"),
        priority=st.sampled_from([INTERACTIVE, BATCH]),
        tokens=st.integers(0, 50),
        hasty=st.booleans(),
    )
    def come(self, key_id: str, priority: Priority, tokens: int, hasty: bool) -> None:
        """Somebody comes."""

        async def come() -> None:
            self.callers.append(Caller(self.places, Visit(key_id, priority, prompt_tokens=tokens), self.order))

        self.loop.run_until_complete(come())
        self.go_on(hasty)

    @rule(n=st.integers(0, 30), hasty=st.booleans())
    def leave(self, n: int, hasty: bool) -> None:
        """Somebody leaves, or will as soon as it is let in."""
        if self.callers:
            self.callers[n % len(self.callers)].leave.set()
            self.go_on(hasty)

    @rule(n=st.integers(0, 30), hasty=st.booleans())
    def hang_up(self, n: int, hasty: bool) -> None:
        """Somebody goes, waiting or not."""
        if self.callers:
            self.callers[n % len(self.callers)].task.cancel()
            self.go_on(hasty)

    @rule(n=st.integers(0, 4), hasty=st.booleans())
    def resize(self, n: int, hasty: bool) -> None:
        """There is room for more, or for fewer, or for nobody."""

        async def resize() -> None:
            self.places.resize(max_running=n, max_waiting=5, max_wait_s=60)

        self.loop.run_until_complete(resize())
        self.most_running = max(self.most_running, n)
        self.go_on(hasty)

    @invariant()
    def it_adds_up(self) -> None:
        """Nobody is counted twice or forgotten, and nobody waits while there is room."""
        lines = self.places._lines.values()
        assert sum(line.keys for line in lines) <= self.places.running + self.places.waiting + 2 * REMEMBERED_KEYS
        if self.settled:
            assert self.places.running == sum(caller.inside for caller in self.callers)
            assert self.places.waiting == sum(caller.waits for caller in self.callers) <= 5
            assert not self.places.waiting or self.places.running >= self.places.max_running

    def teardown(self) -> None:
        """Everybody who stayed gets a place, and at the end nobody is left or remembered."""

        async def end() -> None:
            self.places.resize(max_running=100, max_waiting=5, max_wait_s=60)
            over = await send_home(self.callers)
            assert all(one is None or isinstance(one, asyncio.CancelledError | QueueFull) for one in over), over

        self.loop.run_until_complete(end())
        self.loop.close()
        assert (self.places.running, self.places.waiting) == (0, 0)
        assert not any(line.keys for line in self.places._lines.values())


TestTheRoom = TheRoom.TestCase
TestTheRoom.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
