"""A deployment's whole life, and everything that can end it early."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest
from scripted import GIB, UP, World, failure

from headrace.control.commands import undeploy
from headrace.resources.deployments import Predicted
from headrace.resources.errors import (
    CODES,
    ArchitectureUnsupported,
    DiskFull,
    EngineBadTensor,
    EngineDied,
    EngineKvCacheTooSmall,
    EngineOutOfMemory,
    EngineStartTimeout,
    EngineUnsupportedArchitecture,
    EngineWarmupFailed,
    HeadraceError,
)
from headrace.resources.models import ModelVersion, ServingSpec
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.states import OperationState, ReplicaState


def test_a_deployment_passes_every_state_to_ready(world: World) -> None:
    """Checked, staged, placed, started, warmed, ready; then the operation is done and the gateway knows the engine."""
    operation = world.deploy()
    asyncio.run(world.until_state("READY"))
    asyncio.run(world.turn())
    deployment = world.deployment
    assert world.states(deployment.id) == ["ACCEPTED", "CHECKING", "STAGING", "PLACING", "STARTING", "WARMING", "READY"]
    assert (deployment.runtime, deployment.max_model_len, deployment.memory_bytes) == ("transformers", 4096, 4 * GIB)
    assert world.operation(operation).state is OperationState.SUCCEEDED
    (version,) = world.rows(ModelVersion)
    assert version.fingerprint == "f" * 64
    (replica,) = world.replicas
    assert world.states(replica.id, "replica") == ["PLACED", "STARTING", "WARMING", "READY"]
    assert (replica.epoch, replica.address, replica.pid) == (1, f"unix:/{replica.id}", 7)
    (order,) = world.node.started
    assert (order.nonce, order.fingerprint, order.served_name) == (replica.nonce, "f" * 64, "llama")
    ((route,),) = [endpoint.deployed for endpoint in world.gateway.snapshot.endpoints]
    assert (route.served_name, route.max_model_len, route.traffic, route.why_not_ready) == ("llama", 4096, 100, "")
    assert [(one.id, one.nonce, one.address) for one in route.replicas] == [
        (replica.id, replica.nonce, replica.address)
    ]


def test_the_timeline_tells_what_was_chosen_and_measured(world: World) -> None:
    """Each state's entry says what a person wants to know of it."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    told = {move.state: move.detail for move in world.timeline(world.deployment.id)}
    assert "Runtime transformers: the only one." in told["STAGING"] or "Copying" in told["STAGING"]
    assert "4.00 GiB" in told["STARTING"] or "4.00 GiB" in told["PLACING"] or "Replica" in told["STARTING"]
    assert told["READY"] == "First token after 0.10 s, 50.0 tokens/s."


def test_what_went_to_make_room_is_told_once_and_what_runs_is_kept(world: World) -> None:
    """The node's notes stand in the timeline, each once; its orders name the model until the deployment drains."""
    world.node.notes = ("Evicted staged model aaa.", "The model cache passes its limit.")
    world.deploy()
    asyncio.run(world.until_state("READY"))
    told = [move.detail for move in world.timeline(world.deployment.id)]
    assert [told.count(sentence) for sentence in world.node.notes] == [1, 1]
    assert world.node.orders.kept == ("f" * 64,)
    first = world.bindings[0]
    world.write(
        lambda tx: undeploy(tx, DEFAULT_SCOPE, first.endpoint_id, first.id, contract="test", now=world.clock.now)
    )
    asyncio.run(world.until_state("GONE"))
    asyncio.run(world.turns(2))
    assert world.node.orders.kept == ()


def test_copying_tells_how_much_of_how_much_and_how_fast(world: World) -> None:
    """Bytes, of how many, and the rate of the last seconds."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    told = [move.detail for move in world.timeline(world.deployment.id)]
    assert "Copying: 0.25 GiB of 1.00 GiB, 128 MiB/s." in told


def test_what_cannot_be_served_fails_before_anything_is_copied(world: World) -> None:
    """The check's error is the deployment's and its operation's, and the node hears nothing of it."""
    world.checker.says = ArchitectureUnsupported("No runtime serves it.", evidence="seen")
    operation = world.deploy()
    asyncio.run(world.until_state("FAILED"))
    assert world.deployment.failure == world.checker.says.failure
    assert world.operation(operation).failure == world.checker.says.failure
    asyncio.run(world.turns(3))
    assert world.node.orders.stages == ()
    assert world.checker.asked == 1


def test_a_defect_in_a_check_is_told_as_ours(world: World) -> None:
    """An exception that is none of the tree fails the deployment as INTERNAL instead of hanging it."""
    world.checker.says = ZeroDivisionError("oops")
    world.deploy()
    asyncio.run(world.until_state("FAILED"))
    assert world.deployment.failure is not None
    assert world.deployment.failure.code == "INTERNAL"


def test_a_failed_staging_fails_the_deployment(world: World) -> None:
    """What the node could not copy or install is the deployment's failure."""
    world.node.staging = ("installing", failure(DiskFull))
    operation = world.deploy()
    asyncio.run(world.until_state("FAILED"))
    assert world.operation(operation).failure == failure(DiskFull)


def test_an_old_staging_failure_is_not_held_against_a_new_order(world: World) -> None:
    """The same files asked for again are staged again, whatever became of them the last time."""
    world.node.staging = (failure(DiskFull),)
    world.deploy()
    asyncio.run(world.until_state("FAILED"))
    world.node.staging = ("done",)
    world.deploy()
    asyncio.run(world.until_state("READY"))


DETERMINISTIC = [EngineUnsupportedArchitecture, EngineBadTensor, EngineOutOfMemory, EngineWarmupFailed]


@pytest.mark.parametrize("kind", DETERMINISTIC, ids=lambda kind: kind.code)
def test_what_would_only_happen_again_is_not_tried_again(world: World, kind: type[HeadraceError]) -> None:
    """A deterministic failure of the first replica ends the deployment."""
    world.node.ladder = (ReplicaState.STARTING, failure(kind))
    operation = world.deploy()
    asyncio.run(world.until_state("FAILED"))
    assert world.operation(operation).failure == failure(kind)
    assert len(world.node.started) == 1


@pytest.mark.parametrize("kind", [EngineOutOfMemory, EngineKvCacheTooSmall], ids=lambda kind: kind.code)
def test_what_fails_for_want_of_memory_names_the_next_size_up(world: World, kind: type[HeadraceError]) -> None:
    """In the deployment's failure, its operation's and the timeline's, after what the engine's end says to do."""
    said = "Or ask for the next size up: --machine-type WX-M."
    world.checker.says = msgspec.structs.replace(
        world.checker.says, predicted=Predicted(weights_bytes=1, cache_bytes=1, overhead_bytes=1, if_too_small=said)
    )
    world.node.ladder = (ReplicaState.STARTING, kind("It ended.", fix="Ask for less.").failure)
    operation = world.deploy()
    asyncio.run(world.until_state("FAILED"))
    failed = world.deployment.failure
    assert failed is not None
    assert (failed.code, failed.fix) == (kind.code, f"Ask for less. {said}")
    assert world.operation(operation).failure == failed
    assert world.timeline(world.deployment.id)[-1].failure == failed


def test_what_fails_for_another_reason_names_no_size(world: World) -> None:
    """A larger machine would end as the smaller one did."""
    world.checker.says = msgspec.structs.replace(
        world.checker.says, predicted=Predicted(weights_bytes=1, cache_bytes=1, overhead_bytes=1, if_too_small="More.")
    )
    world.node.ladder = (ReplicaState.STARTING, failure(EngineBadTensor))
    world.deploy()
    asyncio.run(world.until_state("FAILED"))
    assert world.deployment.failure == failure(EngineBadTensor)


@pytest.mark.parametrize("kind", [EngineDied, EngineStartTimeout], ids=lambda kind: kind.code)
def test_what_may_pass_is_tried_once_more(world: World, kind: type[HeadraceError]) -> None:
    """Two engines that die fail a deployment that never was ready; what they left behind is kept."""
    world.node.ladder = (ReplicaState.STARTING, failure(kind))
    operation = world.deploy()
    asyncio.run(world.until_state("FAILED"))
    assert [order.epoch for order in world.node.started] == [1, 2]
    assert world.operation(operation).failure == failure(kind)
    assert [(one.state, one.exit_status, one.failure) for one in world.replicas] == [
        (ReplicaState.FAILED, -9, failure(kind))
    ] * 2


def test_a_second_replica_can_save_the_deployment(world: World) -> None:
    """One engine that died is replaced, and the deployment is ready with a clean slate."""
    world.node.ladder = (ReplicaState.STARTING, failure(EngineDied))
    operation = world.deploy()
    asyncio.run(world.until(lambda: len(world.node.started) == 1))
    world.node.ladder = UP
    asyncio.run(world.until_state("READY"))
    assert world.deployment.failure is None
    asyncio.run(world.turns(2))
    assert world.operation(operation).state is OperationState.SUCCEEDED
    assert world.states(world.deployment.id)[3:] == ["PLACING", "STARTING", "PLACING", "STARTING", "WARMING", "READY"]


def test_a_ready_deployment_is_never_given_up(world: World) -> None:
    """However often its engines die, it is replaced: at once, then after 1, 2, 4, … up to 60 seconds."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    world.node.ladder = (failure(EngineBadTensor),)
    (first,) = world.replicas
    world.node.kill(first.id, failure(EngineDied), log_tail=("last words",))
    starts: list[float] = []

    async def watch() -> None:
        for _ in range(330):
            before = len(world.node.started)
            await world.turn(seconds=1)
            starts.extend([world.clock.now] * (len(world.node.started) - before))

    asyncio.run(watch())
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps == sorted(gaps)
    assert 60 <= gaps[-1] <= 70
    assert len(starts) >= 8
    assert world.deployment.state in {"PLACING", "STARTING"}
    assert len(world.replicas) <= 7
    world.node.ladder = UP
    asyncio.run(world.until_state("READY", at_most=150))
    assert world.deployment.failure is None


def test_a_dead_engine_is_out_of_the_snapshot_at_once(world: World) -> None:
    """The gateway is told of the death in the very next push, with a sentence for callers; then of the replacement."""
    world.deploy()
    asyncio.run(world.until(lambda: world.gateway.replicas))
    (replica,) = world.replicas
    world.node.kill(replica.id, failure(EngineDied), log_tail=("a", "b"))
    asyncio.run(world.turns(2))
    assert replica.id not in world.gateway.replicas
    (route,) = world.gateway.snapshot.endpoints[0].deployed
    assert "ENGINE_DIED" in route.why_not_ready
    asyncio.run(world.until(lambda: world.gateway.replicas))
    dead, alive = world.replicas
    assert (dead.exit_status, dead.log_tail, dead.state) == (-9, ("a", "b"), ReplicaState.FAILED)
    assert (alive.epoch, world.gateway.replicas) == (2, [alive.id])
    assert alive.nonce != dead.nonce


def test_long_service_clears_the_record(world: World) -> None:
    """An engine that served for long and dies is replaced at once, however many died before it."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    for _ in range(3):
        (alive,) = (one for one in world.replicas if one.state is ReplicaState.READY)
        world.node.kill(alive.id, failure(EngineDied))
        asyncio.run(world.turns(2))
        asyncio.run(world.until_state("READY"))
    assert world.deployment.restarts == 3
    asyncio.run(world.turn(seconds=400))
    (alive,) = (one for one in world.replicas if one.state is ReplicaState.READY)
    world.node.kill(alive.id, failure(EngineDied))
    asyncio.run(world.turns(2))
    asyncio.run(world.until_state("READY"))
    assert world.deployment.restarts == 1


def test_memory_is_never_promised_twice(world: World) -> None:
    """A third deployment waits in PLACING, and says for what, until another one has left."""
    for _ in range(2):
        world.deploy()
        asyncio.run(world.until_state("READY"))
    world.deploy()
    asyncio.run(world.until_state("PLACING"))
    asyncio.run(world.turns(5))
    waiting = world.deployment
    assert (waiting.state, waiting.failure) == ("PLACING", None)
    notes = [move.detail for move in world.timeline(waiting.id) if move.state == "PLACING"]
    assert notes[-1].startswith("A replica needs 4.00 GiB of memory and node local has 2.00 GiB free.")
    assert len(notes) == 2, "it is said once"
    first = world.bindings[0]
    world.write(
        lambda tx: undeploy(tx, DEFAULT_SCOPE, first.endpoint_id, first.id, contract="test", now=world.clock.now)
    )
    asyncio.run(world.until_state("READY"))


def test_waiting_for_room_ends_at_the_deadline(world: World) -> None:
    """A deployment that found no room in its time fails as NO_CAPACITY."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    world.checker.says = msgspec.structs.replace(world.checker.says, memory_bytes=8 * GIB)  # type: ignore[type-var]
    operation = world.deploy(timeout_s=30.0)
    asyncio.run(world.until_state("FAILED"))
    failed = world.operation(operation)
    assert failed.failure is not None
    assert failed.failure.code == "NO_CAPACITY"


@pytest.mark.parametrize(
    ("staging", "ladder", "code"),
    [(("copying",), UP, "DEPLOY_TIMEOUT"), (("done",), (ReplicaState.STARTING,), "DEPLOY_TIMEOUT")],
    ids=["staging", "starting"],
)
def test_every_wait_ends_at_the_deadline(
    world: World, staging: tuple[str], ladder: tuple[ReplicaState], code: str
) -> None:
    """Wherever it hangs, a deployment fails at its deadline and what it started is stopped."""
    world.node.staging, world.node.ladder = staging, ladder  # type: ignore[assignment]
    operation = world.deploy(timeout_s=20.0)
    asyncio.run(world.until_state("FAILED"))
    asyncio.run(world.turns(3))
    failed = world.operation(operation)
    assert failed.failure is not None
    assert failed.failure.code == code
    assert world.node.orders.replicas == ()
    assert all(one.state in {ReplicaState.GONE, ReplicaState.FAILED} for one in world.replicas)


def test_without_a_node_a_deployment_waits_and_then_says_so(world: World) -> None:
    """No node has ever reported: CHECKING waits for one, and at the deadline fails as NO_NODE."""
    world.node.silent = True
    world.deploy(timeout_s=10.0)
    asyncio.run(world.turns(5))
    assert world.timeline(world.deployment.id)[-1].detail == "Waiting for a serving node to report."
    asyncio.run(world.until_state("FAILED"))
    assert world.deployment.failure is not None
    assert world.deployment.failure.code == "NO_NODE"


def test_silence_of_a_node_stops_nothing(world: World) -> None:
    """A node that is not heard of keeps its traffic; new replicas wait until it is back."""
    world.deploy()
    asyncio.run(world.until(lambda: world.gateway.replicas))
    before = world.gateway.replicas
    world.node.silent = True
    asyncio.run(world.turns(10, seconds=30))
    assert world.gateway.replicas == before
    assert world.deployment.state == "READY"
    world.deploy()
    asyncio.run(world.until_state("STAGING"))
    asyncio.run(world.turns(3))
    world.node.silent = False
    asyncio.run(world.until_state("READY"))


def test_an_agent_that_starts_anew_disturbs_nobody(world: World) -> None:
    """A node under a new boot id looks at its replicas afresh; they keep their state and their traffic."""
    world.deploy()
    asyncio.run(world.until(lambda: world.gateway.replicas))
    generation, before = world.gateway.snapshot.generation, world.gateway.replicas
    world.node.restart()
    asyncio.run(world.turns(4))
    assert (world.gateway.snapshot.generation, world.gateway.replicas) == (generation, before)
    assert len(world.node.started) == 1


def test_a_machine_that_was_switched_off_gets_new_replicas(world: World) -> None:
    """A replica that its node was told of and does not know is dead, and replaced."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    (lost,) = world.replicas
    world.node.lose_everything()
    world.node.orders = msgspec.structs.replace(world.node.orders, generation=0)
    asyncio.run(world.reconciler.report(world.node.report(world.clock.now)))
    assert world.deployment.state == "READY", "a report that knows of no orders proves nothing"
    world.node.silent = True
    asyncio.run(world.turn())
    assert [one.state for one in world.replicas] == [ReplicaState.READY]
    generation = world.reconciler._nodes["local"].orders
    assert generation is not None
    knowing = msgspec.structs.replace(world.node.report(world.clock.now), orders_generation=generation.generation)
    asyncio.run(world.reconciler.report(knowing))
    world.node.silent = False
    asyncio.run(world.until(lambda: world.replicas[-1].id != lost.id and world.replicas[-1].state == "READY"))
    assert [one.epoch for one in world.replicas] == [1, 2]


def test_a_pool_of_two_serves_while_one_is_replaced(world: World) -> None:
    """With a second replica alive the deployment stays READY, and the pool is filled up again."""
    world.deploy(min_replicas=2, max_replicas=2)
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    first, second = world.replicas
    world.node.kill(first.id, failure(EngineDied))
    asyncio.run(world.turns(2))
    assert (world.deployment.state, world.gateway.replicas) == ("READY", [second.id])
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    assert "PLACING" not in world.states(world.deployment.id)[5:]


def test_every_code_is_judged(world: World) -> None:
    """Of every engine failure it is known whether another attempt is worth it."""
    from headrace.control.restarts import deterministic

    retried = {code for code, kind in CODES.items() if code.startswith("ENGINE_") and not deterministic(failure(kind))}
    assert retried >= {"ENGINE_DIED", "ENGINE_START_TIMEOUT", "ENGINE_UNREACHABLE"}
    assert not retried & {kind.code for kind in DETERMINISTIC}


def test_replicas_are_ordered_as_the_version_wishes(world: World) -> None:
    """What the engine is to be started with goes into every order."""
    wished = {"tensor_parallel": 2, "prefix_caching": False, "chat_template": "{{ messages }}", "tool_parser": "xlam"}
    world.deploy(spec=ServingSpec(**wished))  # type: ignore[arg-type]
    asyncio.run(world.until_state("READY"))
    (order,) = world.node.started
    assert {name: getattr(order, name) for name in wished} == wished
