"""What is over and old is forgotten, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from scripted import World, failure

from headrace.control import history
from headrace.control.commands import undeploy
from headrace.control.history import OVER, Forgetter
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.errors import EngineDied
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.operations import Operation
from headrace.store import Transaction
from headrace.store.timelines import FIRST, NEWEST

DAY_S = 86_400.0


def gone(world: World) -> Operation:
    """A deployment that was READY and is gone; returns the operation that made it."""
    operation = world.deploy()
    asyncio.run(world.until_state("READY"))
    bound = world.bindings[-1]
    world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, bound.endpoint_id, bound.id, contract="t", now=world.clock.now))
    asyncio.run(world.until_state("GONE"))
    return operation


def forget(world: World, **options: float) -> int:
    """What control does every hour."""
    return asyncio.run(Forgetter(world.store, clock=world.clock, **options).forget())


def shortened(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Forget; of each transaction that others waited for, how many deployments' timelines it made shorter."""
    run, counts = world.store.run, []

    def lengths() -> list[int]:
        return [len(world.timeline(one.id)) for one in world.rows(Deployment)]

    async def watched(work: Callable[[Transaction], Any], *, read_only: bool = False) -> Any:
        before = lengths()
        result = await run(work, read_only=read_only)
        if not read_only:
            counts.append(sum(now < then for now, then in zip(lengths(), before, strict=True)))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "run", watched)
        forget(world)
    return counts


def lines(world: World) -> int:
    """Of all timelines together, of rows that are there and of others."""
    ids = {row.id for kind in (*OVER, Replica) for row in world.rows(kind)}
    return sum(len(world.timeline(one, kind)) for one in ids for kind in ("deployment", "replica", "operation"))


def test_what_is_over_goes_with_its_timeline_once_it_is_old(world: World) -> None:
    """Ninety days after their end an operation, a deployment and its replicas are gone from the store; not before."""
    operation = gone(world)
    before = lines(world)
    world.clock.now += 89 * DAY_S
    assert (forget(world), lines(world)) == (0, before)
    world.clock.now += 2 * DAY_S
    assert forget(world) >= 2
    assert [world.rows(kind) for kind in (*OVER, Replica)] == [[], [], [], []]
    assert world.timeline(operation.targets["deployment"]) == []
    assert world.timeline(operation.id, "operation") == []


def test_lines_of_engines_that_are_gone_go_too(world: World) -> None:
    """Of a replica that died its row goes with the deployment, or before; its timeline is forgotten when it is old."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    first = world.replicas[0].id
    world.node.kill(first, failure(EngineDied))
    asyncio.run(world.until(lambda: world.replicas[0].state == "FAILED" and world.living == 1))
    bound = world.bindings[-1]
    world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, bound.endpoint_id, bound.id, contract="t", now=world.clock.now))
    asyncio.run(world.until_state("GONE"))
    assert (world.replicas, bool(world.timeline(first, "replica"))) == ([], True)
    world.clock.now += 91 * DAY_S
    forget(world)
    assert world.timeline(first, "replica") == []


def test_what_goes_on_stays_however_old_it_is(world: World) -> None:
    """A deployment that serves, one that failed and a running operation are there after years, timelines and all."""
    done = world.deploy()
    asyncio.run(world.until(lambda: world.operation(done).state == "SUCCEEDED"))
    running = world.deploy()
    kept = {one.id: world.timeline(one.id) for one in world.rows(Deployment)}
    world.clock.now += 3_000 * DAY_S
    forget(world)
    assert {one.id: world.timeline(one.id) for one in world.rows(Deployment)} == kept
    assert [one.id for one in world.rows(Operation)] == [running.id], "the first one ended years ago"
    assert world.timeline(running.id, "operation")


def test_of_a_long_timeline_the_beginning_and_the_end_stay(world: World) -> None:
    """One that an autoscaler adds to for years keeps how it began and what came last; what is not old stays whole."""
    done = world.deploy()
    asyncio.run(world.until(lambda: world.operation(done).state == "SUCCEEDED"))
    [deployment] = world.rows(Deployment)
    began = len(world.timeline(deployment.id))

    def grow(tx: Transaction, name: str, lines: int) -> None:
        for number in range(lines):
            tx.move(deployment, deployment.state, detail=f"{name} {number}")

    world.write(lambda tx: grow(tx, "old", 700))
    world.clock.now += 91 * DAY_S
    world.write(lambda tx: grow(tx, "new", NEWEST - 10))
    whole = world.timeline(deployment.id)
    shown = world.write(lambda tx: tx.timelines.shown("deployment", deployment.id))
    assert shown == whole[:FIRST] + whole[-NEWEST:]
    assert forget(world) >= 700 + began - FIRST - 10
    assert world.timeline(deployment.id) == shown
    assert world.write(lambda tx: tx.timelines.shown("deployment", deployment.id)) == shown
    assert world.write(lambda tx: tx.timelines.newest("deployment", deployment.id)) == whole[-1]


def test_timelines_are_cut_one_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are long, no transaction that others wait for cuts two of them, nor is there one for those that stay
    as they are."""
    for _ in range(2):
        world.deploy()
    asyncio.run(world.until(lambda: all(one.state == "READY" for one in world.rows(Deployment))))
    deployments = world.rows(Deployment)

    def grow(tx: Transaction) -> None:
        for deployment in deployments:
            for number in range(FIRST + NEWEST + 5):
                tx.move(deployment, deployment.state, detail=f"{number}")

    short = shortened(world, monkeypatch)
    assert not any(short)
    world.write(grow)
    assert shortened(world, monkeypatch) == short
    world.clock.now += 91 * DAY_S
    world.write(lambda tx: tx.move(deployments[0], deployments[0].state, detail="new"))
    assert sorted(shortened(world, monkeypatch)) == [*short, 1, 1]
    assert {len(world.timeline(one.id)) for one in deployments} == {FIRST + NEWEST}


def test_a_store_that_is_told_to_keeps_everything(world: World) -> None:
    """With 0 days nothing is ever looked at: the work ends at once."""
    gone(world)
    world.clock.now += 3_000 * DAY_S
    before = lines(world)
    asyncio.run(Forgetter(world.store, kept_days=0.0, clock=world.clock).run())
    assert lines(world) == before


def test_it_goes_part_by_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much there is, one transaction takes a few rows of it."""
    for _ in range(3):
        gone(world)
    monkeypatch.setattr(history, "AT_ONCE", 1)
    count = sum(len(world.rows(kind)) for kind in OVER)
    world.clock.now += 91 * DAY_S
    assert forget(world) > count > 5
    assert lines(world) == 0
