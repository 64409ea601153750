"""Replicas between what is guaranteed and what is admitted, by the work that comes: scripted, without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from provisioned import carried, carrying, prepare, sell
from scripted import GIB, World

from headrace.control.every_gateway import EveryGateway
from headrace.control.pool import LIVE
from headrace.resources.autoscaling import Autoscaling, read_autoscaling
from headrace.resources.deployments import Replica
from headrace.resources.errors import BadField
from headrace.resources.states import OperationState

FULL = 60.0
"""Model units a minute of a replica that is always busy."""


@pytest.fixture(autouse=True)
def _carries() -> Iterator[None]:
    with carrying(carried()):
        yield


def ready(world: World, least: int, most: int) -> str:
    """A deployment of such a throughput in chunks, READY with what is guaranteed; fewer after a minute."""
    world.node.memory_bytes = 40 * GIB
    prepare(world, "e")
    operation = sell(world, "e", least, most, autoscaling=Autoscaling(lower_after_s=60.0))
    asyncio.run(world.until(lambda: world.operation(operation).state is OperationState.SUCCEEDED))
    return world.deployment.id


def test_work_that_comes_brings_replicas_up_to_what_is_admitted(world: World) -> None:
    """Ten replicas' work of a deployment that was sold up to four replicas' makes four; none of it one again."""
    name = ready(world, 4, 16)
    world.gateway.work_per_minute = {name: 10 * FULL}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 4))
    assert (world.decided.metric, world.decided.target) == ("provisioned_work", 90)
    world.gateway.work_per_minute = {}
    asyncio.run(world.until(lambda: world.living == 1, at_most=300))


def test_never_fewer_than_what_is_guaranteed(world: World) -> None:
    """Though nothing comes at all."""
    ready(world, 9, 16)
    asyncio.run(world.turns(120))
    assert world.living == 3


def test_work_in_line_counts_too(world: World) -> None:
    """Half a replica is busy, and what stands in line would take another minute of one: two run."""
    name = ready(world, 4, 16)
    world.gateway.work_per_minute, world.gateway.work_waiting = {name: 0.5 * FULL}, {name: FULL}
    asyncio.run(world.until(lambda: world.living == 2))


def test_growth_is_met_before_it_is_there(world: World) -> None:
    """30, 40, 50 units in three minutes: one replica still carries that, and the second is started for what comes."""
    name = ready(world, 4, 16)
    for minute in (30.0, 30.0, 30.0, 40.0):
        world.gateway.work_per_minute = {name: minute}
        asyncio.run(world.turns(12, seconds=5.0))
        assert world.living == 1
    world.gateway.work_per_minute = {name: 50.0}
    asyncio.run(world.until(lambda: world.living == 2, at_most=30))


def test_who_is_taken_away_ends_with_its_last_stream(world: World) -> None:
    """It is out of the snapshot first, and not stopped while one runs on it."""
    name = ready(world, 4, 8)
    world.gateway.work_per_minute = {name: 2 * FULL}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    first, second = sorted(world.rows(Replica, state=LIVE), key=lambda one: one.epoch)
    world.gateway.work_per_minute, world.gateway.outstanding = {}, {second.id: 1}
    asyncio.run(world.until(lambda: world.gateway.replicas == [first.id], at_most=200))
    asyncio.run(world.turns(20))
    assert [order.wanted for order in world.node.orders.replicas] == ["run", "run"]
    world.gateway.outstanding = {}
    asyncio.run(world.until(lambda: world.living == 1))


def test_a_gateway_that_is_away_takes_nothing_away(world: World) -> None:
    """What it has may be more than what is known."""
    name = ready(world, 4, 8)
    world.gateway.work_per_minute = {name: 2 * FULL}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    world.gateway.work_per_minute, world.gateway.away = {}, True
    asyncio.run(world.turns(150))
    assert world.living == 2


def test_the_metric_is_for_what_was_sold_alone() -> None:
    """It cannot be asked for: of other deployments no gateway counts work."""
    with pytest.raises(BadField) as caught:
        read_autoscaling({"provisioned_work": 90})
    assert "provisioned_work" not in caught.value.failure.fix


def test_the_work_of_several_gateways_is_added_up(world: World) -> None:
    """Each tells of what came to it."""
    world.gateway.work_per_minute, world.gateway.work_waiting = {"d": 1.5}, {"d": 0.25, "e": 1.0}
    status = asyncio.run(EveryGateway([world.gateway, world.gateway]).status())
    assert (status.work_per_minute, status.work_waiting) == ({"d": 3.0}, {"d": 0.5, "e": 2.0})
