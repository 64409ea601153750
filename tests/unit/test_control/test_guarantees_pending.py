"""A throughput whose replicas have no room: what was goes on, and it is told what is missing, where and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from provisioned import carried, carrying, change, oversold, prepare, route_of, sell
from scripted import GIB, World

from headrace.control.autoscaling.pending import pending_text
from headrace.control.guarantees import until_of
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.operations import Operation
from headrace.resources.states import DeploymentState, OperationState

MISSING = "A replica needs 4.00 GiB of memory and node local has 2.00 GiB free."
SHARE = 400 / 410


@pytest.fixture(autouse=True)
def _carries() -> Iterator[None]:
    with carrying(carried()):
        yield


@pytest.fixture
def full(world: World) -> str:
    """The deployment behind endpoint ``a``: one replica of 4 GiB, and another deployment on the rest of 10 GiB."""
    prepare(world, "a", "b", memory_bytes=4 * GIB)
    until(world, OperationState.SUCCEEDED, sell(world, "a", 4, 4))
    name = world.deployment.id
    until(world, OperationState.SUCCEEDED, world.deploy())
    return name


def until(world: World, state: OperationState, operation: Operation) -> None:
    """Turn until it is so."""
    asyncio.run(world.until(lambda: world.operation(operation).state is state, at_most=90))


def stored(world: World, name: str) -> Deployment:
    """A deployment as it is now."""
    (found,) = world.rows(Deployment, id=name)
    assert isinstance(found, Deployment)
    return found


def pending(world: World, name: str) -> str:
    """What it waits for."""
    told = world.write(lambda tx: pending_text(tx, stored(world, name)))
    assert isinstance(told, str)
    return told


def sentence(operation: Operation) -> str:
    """Until when it is tried again."""
    until_s = until_of(operation)
    assert until_s is not None
    return f"It is tried again until {datetime.fromtimestamp(until_s, UTC):%Y-%m-%d %H:%M:%S} UTC."


def test_more_that_has_no_room_is_told_and_given_up_in_time(world: World, full: str) -> None:
    """The old throughput holds meanwhile and afterwards; the error is the sentence that was told."""
    asked_at = world.clock.now
    more = change(world, "a", 8, 8, timeout_s=60.0)
    asyncio.run(world.turns(5))
    told = pending(world, full)
    assert told.startswith(f"1 of 2 replicas serve. {MISSING}")
    assert told.endswith(sentence(more))
    assert stored(world, full).state is DeploymentState.READY
    assert route_of(world, "a").guaranteed == pytest.approx(SHARE)
    until(world, OperationState.FAILED, more)
    assert world.clock.now >= asked_at + 60.0
    failure = world.operation(more).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("NO_CAPACITY", f"1 of 2 replicas serve. {MISSING}")
    now = stored(world, full)
    assert (now.state, now.min_replicas, now.max_replicas) == (DeploymentState.READY, 1, 1)
    assert route_of(world, "a").guaranteed == pytest.approx(SHARE)
    assert (pending(world, full), oversold(world)) == ("", [])


def test_room_that_comes_in_time_is_taken(world: World, full: str) -> None:
    """Once the other deployment's memory is free, the replica is started and the throughput holds."""
    more = change(world, "a", 8, 8, timeout_s=60.0)
    asyncio.run(world.turns(5))
    world.node.memory_bytes = 20 * GIB
    until(world, OperationState.SUCCEEDED, more)
    asyncio.run(world.turn())
    assert route_of(world, "a").guaranteed == pytest.approx(2 * SHARE)
    assert pending(world, full) == ""


def test_who_joins_and_has_no_room_goes_alone(world: World, full: str) -> None:
    """Its guarantee is none at the gateway while it waits; at its time it is taken off, and who was there serves on."""
    joins = sell(world, "b", 4, 4, timeout_s=30.0)
    asyncio.run(world.turns(5))
    assert [one.deployment_id for one in world.bindings].count(full) == 2
    assert [route_of(world, name).guaranteed for name in "ab"] == [pytest.approx(SHARE), 0.0]
    assert sentence(joins) in pending(world, full)
    until(world, OperationState.FAILED, joins)
    failure = world.operation(joins).failure
    assert failure is not None
    assert MISSING in failure.message
    assert not world.rows(DeployedModel, endpoint_id="b")
    assert (stored(world, full).state, stored(world, full).min_replicas) == (DeploymentState.READY, 1)
    assert len(world.rows(DeployedModel, endpoint_id="a")) == 1


def test_what_is_there_in_part_only_is_not_ready(world: World) -> None:
    """A deploy whose second replica has no room serves by its first, guarantees nothing, and fails at its time."""
    prepare(world, "a", memory_bytes=4 * GIB)
    until(world, OperationState.SUCCEEDED, world.deploy())
    operation = sell(world, "a", 8, 8, timeout_s=60.0)
    asyncio.run(world.until_state("READY"))
    asyncio.run(world.turns(3))
    assert world.operation(operation).state is OperationState.RUNNING
    assert route_of(world, "a").guaranteed == 0.0
    until(world, OperationState.FAILED, operation)
    failure = world.operation(operation).failure
    assert failure is not None
    assert MISSING in failure.message
    assert world.deployment.state is DeploymentState.FAILED


def test_what_never_had_room_fails_with_the_sentence_that_was_told(world: World, full: str) -> None:
    """A deployment of its own, with no replica at all: it is PLACING, says so, and times out as configured."""
    world.node.memory_bytes = 9 * GIB
    operation = sell(world, "b", 1, 1, own=True, timeout_s=60.0)
    name = world.deployment.id
    asyncio.run(world.turns(15))
    told = pending(world, name)
    missing = "A replica needs 4.00 GiB of memory and node local has 1.00 GiB free."
    assert told.startswith(f"0 of 1 replicas serve. {missing}")
    assert told.endswith(sentence(operation))
    until(world, OperationState.FAILED, operation)
    failure = world.operation(operation).failure
    assert failure is not None
    assert failure.message == missing
    assert stored(world, full).state is DeploymentState.READY


def test_a_first_replica_that_starts_is_not_spoken_of_as_another(world: World, full: str) -> None:
    """Nothing serves yet, and what it is about stands in the timeline's last words: it may be measured for minutes."""
    world.node.memory_bytes = 20 * GIB
    sell(world, "b", 1, 1, own=True)
    name = world.deployment.id
    asyncio.run(world.until(lambda: stored(world, name).state is DeploymentState.STARTING, at_most=30))
    (last,) = world.write(lambda tx: tx.timelines.during("deployment", name, 0.0)[-1:])
    assert last.detail
    assert pending(world, name).startswith(f"0 of 1 replicas serve. The first is starting. {last.detail} It is tried")
