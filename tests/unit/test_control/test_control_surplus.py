"""A pool that is told to be smaller: nobody's request is cut off by it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import World, failure

from headrace.control.commands import resize
from headrace.control.pool import LIVE
from headrace.control.restarts import KEPT_FAILURES
from headrace.control.surplus import surplus
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.errors import BadField, DeploymentNotFound, EngineDied, EngineUnreachable
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.states import ReplicaState


def _resize(world: World, least: int) -> None:
    world.write(lambda tx: resize(tx, DEFAULT_SCOPE, world.deployment.id, least=least))


def _ready(world: World, replicas: int) -> list[str]:
    world.node.memory_bytes *= 4
    world.deploy(min_replicas=replicas, max_replicas=replicas)
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == replicas))
    return _living(world)


def _living(world: World) -> list[str]:
    return [one.id for one in sorted(world.rows(Replica, state=LIVE), key=lambda one: one.epoch)]


def test_a_replica_too_many_ends_with_its_last_request(world: World) -> None:
    """The youngest is out of the snapshot first; it is stopped only when nothing runs on it any more."""
    first, second = _ready(world, 2)
    world.gateway.outstanding = {second: 1}
    _resize(world, 1)
    asyncio.run(world.turns(10))
    assert world.gateway.replicas == [first]
    assert [order.wanted for order in world.node.orders.replicas] == ["run", "run"]
    world.gateway.outstanding = {}
    asyncio.run(world.until(lambda: _living(world) == [first]))
    asyncio.run(world.turns(3))
    assert world.states(second, "replica")[-2:] == ["DRAINING", "GONE"]
    assert (world.deployment.state, world.gateway.replicas) == ("READY", [first])
    assert "PLACING" not in world.states(world.deployment.id)[5:]


def test_nothing_is_stopped_while_the_gateway_may_still_send_to_it(world: World) -> None:
    """While the gateway is away nobody knows that it has heard; so all replicas run on."""
    both = _ready(world, 2)
    world.gateway.away = True
    _resize(world, 1)
    asyncio.run(world.turns(10))
    assert _living(world) == both
    world.gateway.away = False
    asyncio.run(world.until(lambda: _living(world) == both[:1]))


def test_a_larger_pool_is_filled_and_one_that_changes_its_mind_keeps_what_runs(world: World) -> None:
    """From one to two a replica is started; told two again before the second had to go, it stays."""
    (first,) = _ready(world, 1)
    _resize(world, 2)
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    both = _living(world)
    assert both[0] == first
    world.gateway.outstanding = {both[1]: 1}
    _resize(world, 1)
    asyncio.run(world.turns(3))
    _resize(world, 2)
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    assert _living(world) == both


def test_growing_is_no_restart(world: World) -> None:
    """Replicas that are added count as none, however often the pool was smaller before; one that replaces does."""
    (first,) = _ready(world, 1)
    for _ in range(3):
        _resize(world, 2)
        asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
        _resize(world, 1)
        asyncio.run(world.until(lambda: _living(world) == [first]))
    assert world.deployment.restarts == 0
    world.node.kill(first, failure(EngineDied))
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 1 and first not in world.gateway.replicas))
    assert world.deployment.restarts == 1
    _resize(world, 3)
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 3))
    assert world.deployment.restarts == 1


def test_the_one_that_stays_is_one_that_serves(world: World) -> None:
    """Where the older replica does not answer, or dies meanwhile, the younger one keeps the traffic."""
    first, second = _ready(world, 2)
    world.gateway.outstanding = {second: 1}
    _resize(world, 1)
    asyncio.run(world.turns(3))
    world.node.kill(first, failure(EngineDied))
    asyncio.run(world.turns(3))
    assert world.gateway.replicas == [second]
    assert _living(world) == [second]


def test_what_still_loads_is_stopped_at_once(world: World) -> None:
    """A replica that never took a request need not be waited for."""
    (first,) = _ready(world, 1)
    world.node.ladder = (ReplicaState.STARTING,)
    _resize(world, 2)
    asyncio.run(world.until(lambda: len(_living(world)) == 2))
    asyncio.run(world.turns(2))
    world.gateway.away = True
    _resize(world, 1)
    asyncio.run(world.until(lambda: _living(world) == [first]))


def test_records_of_stopped_replicas_do_not_pile_up(world: World) -> None:
    """The newest few are kept, for their logs."""
    _ready(world, 1)
    for _ in range(KEPT_FAILURES + 2):
        _resize(world, 2)
        asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
        _resize(world, 1)
        asyncio.run(world.until(lambda: len(_living(world)) == 1))
    asyncio.run(world.turns(3))
    assert len(world.rows(Replica, state=ReplicaState.GONE)) <= KEPT_FAILURES


def test_what_ends_is_not_resized(world: World) -> None:
    """Nor is one that is not there, nor to what is no number of replicas."""
    _ready(world, 1)
    for least in (0, -1):
        with pytest.raises(BadField):
            _resize(world, least)
    with pytest.raises(DeploymentNotFound):
        world.write(lambda tx: resize(tx, DEFAULT_SCOPE, "stranger", least=2))


@given(
    st.lists(st.tuples(st.sampled_from(LIVE), st.booleans()), max_size=6),
    st.integers(min_value=1, max_value=7),
)
def test_never_more_go_than_are_too_many_and_never_one_that_serves_before_one_that_does_not(
    pool: list[tuple[ReplicaState, bool]], wanted: int
) -> None:
    """Exactly the number over; whoever is healthy and READY goes only when no other is left to go."""
    common = {"scope": DEFAULT_SCOPE, "created_at": 0.0, "updated_at": 0.0}
    deployment = Deployment(
        id="d", model_id="m", model_version="1", min_replicas=wanted, max_replicas=wanted, deadline_at=0.0, **common
    )
    live = [
        Replica(
            id=str(place),
            deployment_id="d",
            node_id="n",
            epoch=place,
            nonce="",
            state=state,
            failure=failure(EngineUnreachable) if sick else None,
            **common,
        )
        for place, (state, sick) in enumerate(pool)
    ]
    going = surplus(deployment, live)
    assert len(going) == max(0, len(live) - wanted)
    kept = [one for one in live if one not in going]

    def serves(one: Replica) -> bool:
        return one.state is ReplicaState.READY and one.failure is None

    assert not any(serves(one) for one in going) or all(serves(one) for one in kept)
