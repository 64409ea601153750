"""What the gateway is told, when, and what it is waited for."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from scripted import World, failure

from headrace.control.commands import create_key, limit_key, revoke_key, undeploy
from headrace.control.draining import DRAIN_TIMEOUT_S
from headrace.control.operations import GATEWAY_WAIT_S
from headrace.resources.access import Role
from headrace.resources.errors import ArchitectureUnsupported, EngineDied, EngineUnreachable
from headrace.resources.limits import KeyLimits
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.nodes import Node
from headrace.resources.operations import Operation
from headrace.resources.snapshot import RoutingSnapshot
from headrace.resources.states import OperationState, ReplicaState


def _ready(world: World) -> str:
    world.deploy()
    asyncio.run(world.until(lambda: world.gateway.replicas))
    return world.replicas[0].id


def _undeploy(world: World) -> None:
    (one,) = world.bindings
    world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, one.endpoint_id, one.id, contract="test", now=world.clock.now))


def test_running_requests_finish_before_their_engine_is_stopped(world: World) -> None:
    """Out of the snapshot first; the stop is ordered only when the gateway has nothing under way there any more."""
    replica = _ready(world)
    world.gateway.outstanding = {replica: 2}
    _undeploy(world)
    asyncio.run(world.turns(10))
    assert world.gateway.replicas == []
    assert [order.wanted for order in world.node.orders.replicas] == ["run"]
    world.gateway.outstanding = {}
    asyncio.run(world.turns(3))
    assert world.deployment.state in {"DRAINING", "GONE"}
    asyncio.run(world.until_state("GONE"))
    assert world.node.orders.replicas == ()
    assert world.states(replica, "replica")[-2:] == ["DRAINING", "GONE"]


def test_draining_is_bounded(world: World) -> None:
    """A request that never ends holds its engine no longer than the drain timeout."""
    replica = _ready(world)
    world.gateway.outstanding = {replica: 1}
    _undeploy(world)
    began_at = world.clock.now
    asyncio.run(world.until_state("GONE", at_most=60, seconds=10))
    assert DRAIN_TIMEOUT_S <= world.clock.now - began_at <= DRAIN_TIMEOUT_S + 60


def test_nothing_is_stopped_on_the_word_of_an_old_snapshot(world: World) -> None:
    """While the gateway cannot be told, it may still send: that nothing was under way before proves nothing."""
    _ready(world)
    world.gateway.away = True
    _undeploy(world)
    asyncio.run(world.turns(10))
    assert [order.wanted for order in world.node.orders.replicas] == ["run"]
    world.gateway.away = False
    asyncio.run(world.until_state("GONE"))


def test_a_stop_is_never_taken_back(world: World) -> None:
    """Once a replica was told to stop, no restart of control orders it to run."""
    replica = _ready(world)
    _undeploy(world)
    world.node.silent = True
    asyncio.run(world.until(lambda: world.replicas[0].state is ReplicaState.DRAINING))
    world.restart_control()
    world.gateway.away = True
    asyncio.run(world.turn())
    orders = asyncio.run(world.reconciler.orders("local", seen=0, wait_s=0))
    assert [(order.id, order.wanted) for order in orders.replicas] == [(replica, "stop")]


def test_a_gateway_that_starts_without_a_snapshot_gets_it(world: World) -> None:
    """Its status names another generation than ours: the next exchange is a push."""
    replica = _ready(world)
    pushes = len(world.gateway.pushed)
    asyncio.run(world.turns(3))
    assert len(world.gateway.pushed) == pushes, "what is known is not pushed again"
    world.gateway.restart()
    asyncio.run(world.turns(2))
    assert world.gateway.replicas == [replica]


def test_generations_only_grow(world: World) -> None:
    """Of snapshots and of orders, over restarts of control, and past a gateway that is ahead."""
    _ready(world)
    world.restart_control()
    asyncio.run(world.turns(3))
    _undeploy(world)
    asyncio.run(world.until_state("GONE"))
    world.gateway.snapshot = RoutingSnapshot(generation=10_000)
    world.restart_control()
    asyncio.run(world.turns(4))
    pushed = [snapshot.generation for snapshot in world.gateway.pushed]
    assert pushed[-1] == 10_001
    assert world.gateway.snapshot.generation == 10_001
    assert pushed == sorted(pushed)
    assert world.node.seen_generations == sorted(world.node.seen_generations)


def test_a_snapshot_holds_good_keys_and_no_secret(world: World) -> None:
    """A key is routed by its hash, with its limits; one that is revoked is not there in the next push."""
    key, secret = world.write(lambda tx: create_key(tx, name="ci", project="p", role=Role.PREDICTOR, now=1.0))
    asyncio.run(world.turn())
    (route,) = world.gateway.snapshot.keys
    assert (route.secret_hash, route.principal) == (key.secret_hash, key.principal)
    assert secret not in str(world.gateway.snapshot)
    world.write(lambda tx: limit_key(tx, key.id, KeyLimits(tokens_per_minute=100)))
    asyncio.run(world.turn())
    assert world.gateway.snapshot.keys[0].limits == KeyLimits(tokens_per_minute=100)
    world.write(lambda tx: revoke_key(tx, key.id, now=2.0))
    asyncio.run(world.turn())
    assert world.gateway.snapshot.keys == ()


def test_callers_are_told_why_nothing_answers(world: World) -> None:
    """In every state before READY the route has a sentence; a failure's is in it."""
    seen: dict[str, str] = {}

    async def watch() -> None:
        while world.deployment.state != "READY":
            await world.turn()
            for endpoint in world.gateway.snapshot.endpoints:
                seen[world.deployment.state] = endpoint.deployed[0].why_not_ready

    world.deploy()
    asyncio.run(watch())
    assert {"STAGING", "STARTING", "WARMING"} <= seen.keys()
    assert all(sentence for state, sentence in seen.items() if state != "READY")
    world.checker.says = ArchitectureUnsupported("Nobody serves mamba9.")
    world.deploy()
    asyncio.run(world.until_state("FAILED"))
    asyncio.run(world.turns(2))
    sentences = [route.why_not_ready for endpoint in world.gateway.snapshot.endpoints for route in endpoint.deployed]
    assert any("ARCHITECTURE_UNSUPPORTED: Nobody serves mamba9." in sentence for sentence in sentences)


def test_nothing_is_written_or_pushed_while_nothing_happens(world: World) -> None:
    """Heartbeats of a quiet system leave every row, every generation and every order as it is, but for the node's row
    twice a minute."""
    _ready(world)
    asyncio.run(world.turns(3))
    before = (world.deployment, world.replicas, world.gateway.snapshot.generation, world.node.orders)
    (node,) = world.rows(Node)
    asyncio.run(world.turns(60, seconds=2))
    assert (world.deployment, world.replicas, world.gateway.snapshot.generation, world.node.orders) == before
    (later,) = world.rows(Node)
    assert 3 <= later.resource_version - node.resource_version <= 4
    assert world.clock.now - later.last_seen_at <= 32


def test_a_long_poll_ends_when_orders_change(world: World) -> None:
    """A node that has seen the newest orders waits for the next, and gets them the moment there are some."""

    async def scenario() -> None:
        await world.turns(2)
        seen = world.node.orders.generation
        poll = asyncio.create_task(world.reconciler.orders("local", seen=seen, wait_s=60))
        await world.reconciler.reconcile_once()
        assert not poll.done()
        world.deploy()
        world.node.silent = True
        await world.turns(3)
        orders = await poll
        assert orders.generation > seen
        assert [stage.runtime for stage in orders.stages] == ["transformers"]
        again = await world.reconciler.orders("local", seen=orders.generation, wait_s=0)
        assert again == orders

    asyncio.run(scenario())


def test_nobody_waits_for_orders_of_a_control_that_ends(world: World) -> None:
    """A long poll is answered when the reconciler is cancelled, so that the process can end at once."""

    async def scenario() -> None:
        running = asyncio.create_task(world.reconciler.run())
        seen = (await world.reconciler.orders("local", seen=0, wait_s=60)).generation
        poll = asyncio.create_task(world.reconciler.orders("local", seen=seen, wait_s=60))
        await asyncio.sleep(0)  # it begins to wait
        running.cancel()
        assert (await asyncio.wait_for(poll, 30)).generation == seen

    asyncio.run(scenario())


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
def test_an_engine_that_dies_while_draining_is_just_gone(world: World, dead: bool) -> None:
    """Its end was asked for: no failure is recorded, nothing replaces it, and the operation succeeds."""
    replica = _ready(world)
    world.gateway.outstanding = {replica: 1}
    _undeploy(world)
    asyncio.run(world.turns(3))
    if dead:
        world.node.kill(replica, failure(EngineDied))
    world.gateway.outstanding = {}
    asyncio.run(world.until_state("GONE"))
    assert len(world.node.started) == 1
    (undeploying,) = world.rows(Operation, kind="undeploy")
    assert undeploying.state is OperationState.SUCCEEDED


def test_a_deployment_is_done_when_the_gateway_sends_to_it(world: World) -> None:
    """No caller who waits for the operation meets a gateway that does not know of the deployment."""
    operation = world.deploy()

    async def watch() -> None:
        while world.operation(operation).state is OperationState.RUNNING:
            await world.reconciler.reconcile_once()
            if world.operation(operation).state is not OperationState.RUNNING:
                break
            await world.turn()
        assert world.gateway.replicas == [world.replicas[0].id]

    asyncio.run(watch())
    assert world.operation(operation).state is OperationState.SUCCEEDED


def test_a_gateway_that_is_away_does_not_hold_an_operation(world: World) -> None:
    """It is waited for some seconds, and no longer."""
    operation = world.deploy()
    world.gateway.away = True
    asyncio.run(world.until_state("READY"))
    assert world.operation(operation).state is OperationState.RUNNING
    asyncio.run(world.turns(round(GATEWAY_WAIT_S) + 2))
    assert world.operation(operation).state is OperationState.SUCCEEDED


def test_an_engine_that_does_not_answer_gets_no_requests(world: World) -> None:
    """Out of the snapshot with the reason while its node says so, and back when it answers again."""
    replica = _ready(world)
    well = world.node.replicas[replica]
    silent = EngineUnreachable("It does not answer.").failure
    world.node.replicas[replica] = msgspec.structs.replace(well, failure=silent)
    asyncio.run(world.until(lambda: not world.gateway.replicas))
    ((route,),) = [endpoint.deployed for endpoint in world.gateway.snapshot.endpoints]
    assert "ENGINE_UNREACHABLE: It does not answer." in route.why_not_ready
    assert route.returns
    assert world.deployment.state == "READY"
    world.node.replicas[replica] = well
    asyncio.run(world.until(lambda: world.gateway.replicas == [replica]))
    world.node.kill(replica, silent)
    asyncio.run(world.until(lambda: world.gateway.replicas and world.gateway.replicas != [replica]))
    assert world.deployment.restarts == 1
