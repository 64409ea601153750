"""A deployment that scales to zero, seen from the gateway: who asks waits, control hears of it, nobody is sent away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_serving import (
    ADMIN_TOKEN,
    BASE,
    CHAT,
    Served,
    deployed,
    gateway_before,
    serving_gateway,
    snapshot,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_admission import place, room, settle

from headrace.gateway import Gateway
from headrace.gateway.returning import WHY as WHY_RETURNING
from headrace.gateway.snapshot_file import save_snapshot
from headrace.gateway.waiting_room import CLOSED_RETRY_AFTER_S
from headrace.resources.errors import Failure
from standin import Script, StandIn

URL = f"{BASE}/chat/completions"
WHY = "It scaled to zero; a request wakes it."
NAME = "dep-d1"


def asleep(**more: Any) -> Any:
    """A deployed model that sleeps."""
    return deployed(wakes=True, why_not_ready=WHY, **more)


async def status(served: Served) -> dict[str, Any]:
    """What the gateway tells control."""
    told: dict[str, Any] = (await served.admin_get("/status")).json()
    return told


async def until(served: Served, satisfied: Callable[[dict[str, Any]], bool]) -> None:
    """Ask for the status until it is so, as control does."""
    async with asyncio.timeout(10):
        while not satisfied(await status(served)):
            continue


def test_who_asks_what_sleeps_is_answered_once_it_is_awake(tmp_path: Path) -> None:
    """Requests wait, unary and streamed; control hears how many; when a replica comes all of them are answered."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, asleep()) as served:
            assert (await status(served))["waiting"] == {}
            unary = [asyncio.create_task(served.client.post(URL, json=CHAT)) for _ in range(3)]
            stream = asyncio.create_task(served.client.post(URL, json=CHAT | {"stream": True}))
            await until(served, lambda told: told["waiting"] == {NAME: 4})
            assert not any(task.done() for task in (*unary, stream))
            await served.push(snapshot(deployed(engine.address, wakes=True), generation=2))
            answers = await asyncio.gather(*unary, stream)
            assert [answer.status_code for answer in answers] == [200] * 4
            assert answers[-1].text.rstrip().endswith("data: [DONE]")
            assert (await status(served))["waiting"] == {}

    asyncio.run(main())


def test_the_models_name_still_means_it(tmp_path: Path) -> None:
    """OpenAI's route finds a model that sleeps by its name."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, asleep()) as served:
            asked = asyncio.create_task(served.client.post("/v1/chat/completions", json=CHAT | {"model": "my-model"}))
            await until(served, lambda told: told["waiting"] == {NAME: 1})
            await served.push(snapshot(deployed(engine.address, wakes=True), generation=2))
            assert (await asked).status_code == 200

    asyncio.run(main())


def test_what_does_not_wake_is_said(tmp_path: Path) -> None:
    """After the longest wait a request gets 503 with the reason and a time to come back, and control no longer hears
    of it."""

    async def main() -> None:
        async with gateway_before(tmp_path, asleep(max_wake_s=0.05)) as served:
            answer = await served.client.post(URL, json=CHAT)
            assert answer.status_code == 503
            assert float(answer.headers["retry-after"]) == CLOSED_RETRY_AFTER_S
            assert WHY in answer.text
            assert "waited 0.05 s for a replica" in answer.text
            assert (await status(served))["waiting"] == {}

    asyncio.run(main())


def test_the_line_before_what_sleeps_is_bounded(tmp_path: Path) -> None:
    """One more than may wait is told when to come back, as before a busy model."""

    async def main() -> None:
        async with gateway_before(tmp_path, asleep(max_waiting=1)) as served:
            first = asyncio.create_task(served.client.post(URL, json=CHAT))
            await until(served, lambda told: told["waiting"] == {NAME: 1})
            answer = await served.client.post(URL, json=CHAT)
            assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
            first.cancel()
            await until(served, lambda told: not told["waiting"])

    asyncio.run(main())


def test_what_does_not_scale_to_zero_is_refused_at_once(tmp_path: Path) -> None:
    """Nobody waits for a deployment that no request would wake."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed(why_not_ready="It failed.")) as served:
            answer = await served.client.post(URL, json=CHAT)
            assert (answer.status_code, "It failed." in answer.text) == (503, True)

    asyncio.run(main())


def test_who_waits_for_what_failed_is_told(tmp_path: Path) -> None:
    """A request in line does not wait its 300 s out when what it waits for has failed for good."""

    async def main() -> None:
        async with gateway_before(tmp_path, asleep()) as served:
            asked = asyncio.create_task(served.client.post(URL, json=CHAT))
            await until(served, lambda told: bool(told["waiting"]))
            failure = Failure(code="ENGINE_DIED", message="It died.")
            await served.push(snapshot(deployed(failure=failure), generation=2))
            answer = await asked
            assert (answer.status_code, "ENGINE_DIED: It died." in answer.text) == (503, True)

    asyncio.run(main())


def test_idleness_is_counted_from_the_last_request(tmp_path: Path) -> None:
    """Only of what scales to zero and has a replica; not while a request runs; from its end on, anew."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            assert (await status(served))["idle_s"] == {}
            await served.push(snapshot(deployed(engine.address, wakes=True), generation=2))
            before = (await status(served))["idle_s"][NAME]
            await until(served, lambda told: told["idle_s"][NAME] > before + 0.05)
            await served.client.post(URL, json=CHAT)
            assert (await status(served))["idle_s"][NAME] < before + 0.05
            await served.push(snapshot(asleep(), generation=3))
            assert (await status(served))["idle_s"] == {}

    asyncio.run(main())


def test_a_request_that_runs_is_not_idleness(tmp_path: Path) -> None:
    """While an answer is made its deployment is not idle, and the engine has it under way."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address, wakes=True)) as served,
        ):
            engine.script = Script(gated=True)
            running = asyncio.create_task(served.client.post(URL, json=CHAT))
            await engine.until(began=1)
            told = await status(served)
            assert (told["outstanding"], told["idle_s"]) == ({"d1-r0": 1}, {})
            engine.gate.release()
            assert (await running).status_code == 200

    asyncio.run(main())


STEPS = st.lists(st.sampled_from(["ask", "ask", "end", "sleep", "wake", "hang up"]), max_size=40)


@settings(deadline=None)
@given(steps=STEPS, hasty=st.booleans())
def test_nobody_is_let_in_while_it_sleeps(steps: list[str], hasty: bool) -> None:
    """Whatever comes in whatever order, whoever holds a place found the room open, and all who stay get theirs."""

    async def main() -> None:
        places, served, tasks = room(max_running=2), list[bool](), list[asyncio.Task[None]]()
        ends = asyncio.Event()

        async def ask() -> None:
            async with place(places):
                served.append(places.max_running > 0)
                await ends.wait()

        for step in steps:
            if step == "ask":
                tasks.append(asyncio.create_task(ask()))
            elif step == "end":
                ends.set()
                await settle()
                ends.clear()
            elif step == "hang up" and tasks:
                tasks[-1].cancel()
            else:
                places.resize(max_running=2 if step == "wake" else 0, max_waiting=100, max_wait_s=60)
            if not hasty:
                await settle()
            assert not places.idle_s or not (places.running or places.waiting)
        places.resize(max_running=2, max_waiting=100, max_wait_s=60)
        ends.set()
        over = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(one is None or isinstance(one, asyncio.CancelledError) for one in over), over
        assert all(served)
        assert (places.running, places.waiting) == (0, 0)

    asyncio.run(main())


def _restarted(folder: Path) -> Gateway:
    """A gateway that finds a snapshot on disk."""
    return Gateway(snapshot_path=folder / "snapshot.json", control_address="unix:/nowhere", admin_token=ADMIN_TOKEN)


def test_a_restart_of_the_server_loses_no_request(tmp_path: Path) -> None:
    """Of a kept snapshot the engines that are gone get nothing: who asks waits through all that control says until one
    is back, and is answered."""

    async def main() -> None:
        gone = StandIn(tmp_path / "gone")
        async with gone:
            kept = deployed(gone.address)
        save_snapshot(tmp_path / "snapshot.json", snapshot(kept))
        async with serving_gateway(_restarted(tmp_path), tmp_path / "admin") as served:
            assert (await served.client.get("/readyz")).status_code == 200
            asked = [asyncio.create_task(served.client.post(URL, json=CHAT)) for _ in range(2)]
            asked.append(asyncio.create_task(served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1"})))
            await until(served, lambda told: told["waiting"] == {NAME: 3})
            await served.push(snapshot(kept, generation=2))  # control has not heard of it yet
            await served.push(snapshot(deployed(why_not_ready="Its engine is loading."), generation=3))
            assert (await status(served))["waiting"] == {NAME: 3}
            async with StandIn(tmp_path / "back") as engine:
                await served.push(snapshot(deployed(engine.address), generation=4))
                assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 3
            # It is back: from now on it is as every deployment is.
            await served.push(snapshot(deployed(why_not_ready="Its replicas are being replaced."), generation=5))
            assert (await served.client.post(URL, json=CHAT)).status_code == 503

    asyncio.run(main())


def test_who_waits_after_a_restart_waits_for_so_long(tmp_path: Path) -> None:
    """An engine that does not come back costs a request at most the longest wait, and the answer says why."""

    async def main() -> None:
        save_snapshot(tmp_path / "snapshot.json", snapshot(deployed(f"unix:{tmp_path}/none", max_wait_s=0.05)))
        async with serving_gateway(_restarted(tmp_path), tmp_path / "admin") as served:
            answer = await served.client.post(URL, json=CHAT)
            assert (answer.status_code, WHY_RETURNING in answer.text) == (503, True)

    asyncio.run(main())


def test_engines_that_outlived_the_gateway_are_used_at_once(tmp_path: Path) -> None:
    """A gateway that is replaced routes to the replicas that listen, and to no other."""

    async def main() -> None:
        async with StandIn(tmp_path / "lives") as engine:
            save_snapshot(tmp_path / "snapshot.json", snapshot(deployed(f"unix:{tmp_path}/none", engine.address)))
            async with serving_gateway(_restarted(tmp_path), tmp_path / "admin") as served:
                answers = [await served.client.post(URL, json=CHAT) for _ in range(8)]
                assert [answer.status_code for answer in answers] == [200] * 8
                assert engine.seen.answered == 8

    asyncio.run(main())


def test_what_failed_while_it_was_waited_for_is_told(tmp_path: Path) -> None:
    """Nobody waits for an engine that cannot come back."""

    async def main() -> None:
        save_snapshot(tmp_path / "snapshot.json", snapshot(deployed(f"unix:{tmp_path}/none")))
        async with serving_gateway(_restarted(tmp_path), tmp_path / "admin") as served:
            asked = asyncio.create_task(served.client.post(URL, json=CHAT))
            await until(served, lambda told: told["waiting"] == {NAME: 1})
            failure = Failure(code="ENGINE_DIED", message="It died.")
            await served.push(snapshot(deployed(failure=failure), generation=2))
            assert "ENGINE_DIED: It died." in (await asked).text

    asyncio.run(main())
