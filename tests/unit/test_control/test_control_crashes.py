"""Control may be killed at any moment: whatever it was doing, the next one ends where it would have ended."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import World

from headrace.control.commands import delete_endpoint
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.operations import Operation
from headrace.resources.states import OperationState, ReplicaState
from headrace.store import Store, Transaction

T = TypeVar("T")


LIFE = ["ACCEPTED", "CHECKING", "STAGING", "PLACING", "STARTING", "WARMING", "READY"]


class Killed(BaseException):
    """Nothing in control catches it, as nothing catches signal 9."""


class FragileStore(Store):
    """Dies at chosen transactions: before its work, or after its commit and before anybody hears of it."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.count = 0
        self.dies_before: frozenset[int] = frozenset()
        self.dies_after: frozenset[int] = frozenset()

    async def run(self, work: Callable[[Transaction], T], *, read_only: bool = False) -> T:
        """As `Store.run`, or not."""
        self.count += 1
        number = self.count
        if number in self.dies_before:
            raise Killed
        result = await super().run(work, read_only=read_only)
        if number in self.dies_after:
            raise Killed
        return result


def _run(world: World, done: Callable[[], bool], *, reboots: frozenset[int] = frozenset()) -> None:
    """Turn until it is done, with a fresh reconciler after each death."""
    for turn in range(200):
        if done():
            return
        if turn in reboots:
            world.node.restart()
        try:
            asyncio.run(world.turn())
        except Killed:
            world.restart_control()
    raise AssertionError(
        f"It does not end: {[move for one in world.rows(Deployment) for move in world.timeline(one.id)]}"
    )


@given(
    before=st.frozensets(st.integers(1, 60), max_size=6),
    after=st.frozensets(st.integers(1, 60), max_size=6),
    reboots=st.frozensets(st.integers(0, 20), max_size=2),
)
@settings(max_examples=20, deadline=None)
def test_every_death_leads_to_the_same_end(
    before: frozenset[int], after: frozenset[int], reboots: frozenset[int]
) -> None:
    """Killed before and after any of its transactions, control brings a deployment to READY with one replica, and takes
    it off again without a trace."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), make_store=FragileStore)
        assert isinstance(world.store, FragileStore)
        world.store.dies_before, world.store.dies_after = before, after
        operation = world.deploy(endpoint_id="chat")
        _run(world, lambda: world.operation(operation).state is not OperationState.RUNNING, reboots=reboots)
        assert world.states(world.deployment.id) == LIFE
        assert world.operation(operation).state is OperationState.SUCCEEDED
        assert world.gateway.replicas == [one.id for one in world.replicas]
        assert [(one.state, one.epoch) for one in world.replicas] == [(ReplicaState.READY, 1)]
        assert len(world.node.started) == 1
        world.write(
            lambda tx: delete_endpoint(tx, DEFAULT_SCOPE, "chat", force=True, contract="test", now=world.clock.now)
        )
        _run(world, lambda: not world.rows(Endpoint) and world.node.orders.replicas == ())
        assert (world.rows(DeployedModel), world.rows(Replica), world.gateway.replicas) == ([], [], [])
        assert {one.state for one in world.rows(Operation)} == {OperationState.SUCCEEDED}
        assert world.node.replicas == {} or all(one.state is ReplicaState.GONE for one in world.node.replicas.values())
        generations = [snapshot.generation for snapshot in world.gateway.pushed]
        assert generations == sorted(generations)
        assert world.node.seen_generations == sorted(world.node.seen_generations)
        world.store.close()


@pytest.mark.parametrize("state", LIFE)
def test_a_new_control_goes_on_from_every_state(world: World, state: str) -> None:
    """Whatever state it finds a deployment in, it needs nothing but the rows."""
    world.deploy()
    asyncio.run(world.until(lambda: state in world.states(world.deployment.id)))
    world.restart_control()
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 1))
    assert world.deployment.state == "READY"


def test_a_defect_with_one_deployment_leaves_the_others_alone(world: World) -> None:
    """An exception while one is worked on is logged and tried again later; the rest goes on."""
    world.deploy(endpoint_id="bad")
    bad = world.deployment.id
    run = world.store.run

    async def poisoned(work: Any, *, read_only: bool = False) -> Any:
        if getattr(work, "keywords", {}).get("key", (None, None))[1] == bad:
            raise ZeroDivisionError
        return await run(work, read_only=read_only)

    world.store.run = poisoned  # type: ignore[method-assign]
    world.deploy(endpoint_id="good")
    asyncio.run(world.until_state("READY"))
    world.store.run = run  # type: ignore[method-assign]
    asyncio.run(world.until(lambda: all(one.state == "READY" for one in world.rows(Deployment)), at_most=90))


def test_run_drives_everything_by_itself(world: World) -> None:
    """The loops themselves: woken by reports and commands, they bring a deployment to the gateway without being
    driven."""

    async def scenario() -> None:
        running = asyncio.create_task(world.reconciler.run())
        world.deploy()
        world.reconciler.wake()
        # A report may come between a pass's decisions and its snapshot: then the gateway knows before the row does.
        while not world.gateway.replicas or world.deployment.state != "READY":
            await world.node.turn(world.reconciler, world.clock.now, wait_s=0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scenario())
    assert world.deployment.state == "READY"


def test_run_survives_its_own_defects(world: World) -> None:
    """A pass that raises is logged, and the next one works."""
    failures = iter([ZeroDivisionError("first pass")])
    once = world.reconciler.reconcile_once

    async def failing() -> float | None:
        for error in failures:
            raise error
        return await once()

    world.reconciler.reconcile_once = failing  # type: ignore[method-assign]
    test_run_drives_everything_by_itself(world)
