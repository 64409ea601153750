"""The only engine of a deployment ends: who asks waits for its successor, and nobody for what never comes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from gateway_serving import BASE, CHAT, Served, deployed, gateway_before, snapshot

from headrace.gateway.fleet import Pool
from headrace.gateway.replacement import Replacement
from headrace.resources.errors import EngineDied, Failure
from standin import Script, StandIn

PATH = f"{BASE}/chat/completions"
GONE = "unix:/nowhere/e"
STREAM = CHAT | {"stream": True}


def pool_of(served: Served) -> Pool:
    """The one pool of a gateway."""
    return served.gateway._routing.fleet.pools["dep-d1"]


def asked(served: Served, bodies: list[dict[str, object]]) -> list[asyncio.Task[httpx.Response]]:
    """Requests under way."""
    return [asyncio.create_task(served.client.post(PATH, json=body)) for body in bodies]


async def until_waiting(served: Served, number: int) -> None:
    """Wait until so many wait for a change of replicas, or in line."""
    async with asyncio.timeout(20):
        while len(pool_of(served).replacement._waiters) + pool_of(served).room.waiting < number:  # noqa: ASYNC110
            await asyncio.sleep(0)


def test_nobody_is_refused_while_the_only_engine_is_replaced(tmp_path: Path) -> None:
    """Neither before anybody knows that it ended, nor until the next one is there; each has one engine's answer."""

    async def main() -> None:
        async with StandIn(tmp_path / "next") as successor, gateway_before(tmp_path, deployed(GONE)) as served:
            early = asked(served, [CHAT, STREAM])
            await until_waiting(served, 2)
            await served.push(snapshot(deployed(returns=True, why_not_ready="It starts."), generation=2))
            late = asked(served, [CHAT, STREAM])
            await until_waiting(served, 4)
            await served.push(snapshot(deployed(successor.address), generation=3))
            answers = await asyncio.gather(*early, *late)
            assert [answer.status_code for answer in answers] == [200] * 4
            assert successor.seen.began == 4
            assert pool_of(served).room.running == 0

    asyncio.run(main())


def test_what_broke_off_before_its_first_byte_moves_to_the_successor(tmp_path: Path) -> None:
    """It may have been begun: so it goes to one more engine, and if that ends as well, to no third."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "1") as first,
            StandIn(tmp_path / "2") as second,
            gateway_before(tmp_path, deployed(first.address)) as served,
        ):
            first.script = Script(die_after=0)
            (moved,) = asked(served, [CHAT])
            await until_waiting(served, 1)
            await served.push(snapshot(deployed(returns=True), generation=2))
            await served.push(snapshot(deployed(second.address), generation=3))
            assert (await moved).status_code == 200
            await served.push(snapshot(deployed(first.address), generation=4))
            (ends_it,) = asked(served, [CHAT])
            await until_waiting(served, 1)
            second.script = Script(die_after=0)
            await served.push(snapshot(deployed(second.address), generation=5))
            assert (await ends_it).json()["error"]["details"][0]["reason"] == "ENGINE_UNREACHABLE"

    asyncio.run(main())


@pytest.mark.parametrize(
    "then",
    [
        deployed(failure=Failure(code=EngineDied.code, message="It died too often."), why_not_ready="It failed."),
        deployed(why_not_ready="Its server is away."),
        deployed(name="d2"),
    ],
    ids=["failed for good", "nothing is to come", "undeployed"],
)
def test_what_does_not_come_is_not_waited_for(tmp_path: Path, then: object) -> None:
    """As soon as control says so, whoever waits is told."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed(GONE)) as served:
            (waiting,) = asked(served, [CHAT])
            await until_waiting(served, 1)
            await served.push(snapshot(then, generation=2))  # type: ignore[arg-type]
            assert (await waiting).status_code == 503

    asyncio.run(main())


def test_if_nobody_says_that_it_is_replaced_it_is_told_in_good_time(tmp_path: Path) -> None:
    """An engine that is listed on and cannot be reached: after `noticed_s` the request is refused, as before."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed(GONE), noticed_s=0.05) as served:
            answer = await served.client.post(PATH, json=CHAT)
            assert (answer.status_code, answer.json()["error"]["details"][0]["reason"]) == (503, "ENGINE_UNREACHABLE")

    asyncio.run(main())


def test_a_client_that_leaves_waits_no_longer(tmp_path: Path) -> None:
    """Its place is free at once, and nobody is waited for in its name."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed(GONE)) as served:
            (leaving,) = asked(served, [CHAT])
            await until_waiting(served, 1)
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            async with asyncio.timeout(20):
                while pool_of(served).room.running:  # noqa: ASYNC110 - it has no event for that
                    await asyncio.sleep(0)
            assert not pool_of(served).replacement._waiters

    asyncio.run(main())


def test_only_the_first_minute_is_waited_in() -> None:
    """Who comes when a deployment has been away for longer is told at once; one that came back counts anew."""
    now = time.monotonic()
    replacement = Replacement(lambda: now)
    away = deployed(returns=True, max_wait_s=60.0)
    replacement.follow(away, there=False)
    assert replacement.left_s == 60.0
    now += 45.0
    replacement.follow(away, there=False)
    assert replacement.left_s == 15.0
    now += 15.0
    assert replacement.left_s == 0.0
    replacement.follow(deployed(GONE), there=True)
    replacement.follow(away, there=False)
    assert replacement.left_s == 60.0
