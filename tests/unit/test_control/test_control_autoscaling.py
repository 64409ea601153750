"""From what gateway and nodes say to how many replicas run: with a store, a clock and a script, and no engine."""

from __future__ import annotations

import asyncio

import pytest
from scripted import GIB, World, failure

from headrace.control.commands import autoscale, resize, scale_to_zero
from headrace.control.pool import LIVE
from headrace.resources.assignments import ReplicaLoad
from headrace.resources.autoscaling import Autoscaling, Metric, MetricTarget, read_autoscaling
from headrace.resources.deployments import MachineSpec, Replica
from headrace.resources.errors import BadField, EngineDied
from headrace.resources.external import ExternalServer
from headrace.resources.models import ServingSpec
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.states import DeploymentState

LOWER_AFTER_S = 60.0


def load(**values: float) -> ReplicaLoad:
    """A measurement of the last second."""
    return ReplicaLoad(at=0.0, over_s=1.0, **values)


def ready(world: World, *, least: int = 1, most: int = 4, **targets: int) -> str:
    """A deployment that scales by these, READY with its fewest replicas, and measured."""
    world.node.memory_bytes = 40 * GIB
    wish = Autoscaling(
        targets=tuple(MetricTarget(Metric(name), target) for name, target in targets.items()),
        lower_after_s=LOWER_AFTER_S,
    )
    world.deploy(min_replicas=least, max_replicas=most, autoscaling=wish)
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == least))
    asyncio.run(world.turns(3))
    return world.deployment.id


def test_requests_that_come_bring_replicas_and_quiet_takes_them_away(world: World) -> None:
    """240 requests a minute at a target of 60 make four replicas; none for the time asked for makes one again."""
    name = ready(world, request_count=60)
    world.gateway.per_minute = {name: 240}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 4))
    assert (world.decided.replicas, world.decided.metric, world.decided.target) == (4, "request_count", 60)
    told = [move.detail for move in world.timeline(name) if move.detail.startswith("Replicas from now on")]
    assert told[0] == "Replicas from now on: 3; until now 1. request_count is 240 a replica; its target is 60."
    world.gateway.per_minute = {}
    began = world.clock.now
    asyncio.run(world.until(lambda: world.living == 1, at_most=300))
    assert world.clock.now - began >= LOWER_AFTER_S
    assert world.deployment.state is DeploymentState.READY
    assert "no more were needed" in world.timeline(name)[-1].detail


@pytest.mark.parametrize(
    ("metric", "target", "values", "most"),
    [
        ("cpu_utilization", 60, {"cpu_percent": 100.0}, 4),
        ("accelerator_duty_cycle", 40, {"accelerator_percent": 90.0}, 4),
        ("dcgm_fi_dev_gpu_util", 40, {"accelerator_percent": 90.0}, 4),
        ("vllm_gpu_cache_usage_perc", 50, {"kv_cache_percent": 99.0}, 4),
        ("vllm_num_requests_waiting", 2, {"waiting": 4.0}, 4),
    ],
)
def test_what_replicas_have_to_do_brings_more(
    world: World, metric: str, target: int, values: dict[str, float], most: int
) -> None:
    """A replica that is over its target, as its node measured it, gets others beside it."""
    ready(world, most=most, **{metric: target})
    assert [order.measured for order in world.node.orders.replicas] == [True]
    world.node.loads = {"": load(**values)}
    asyncio.run(world.until(lambda: world.living > 1))
    assert world.decided.metric == metric


def test_the_line_of_the_gateway_counts_as_waiting_and_so_does_what_runs_as_under_way(world: World) -> None:
    """Requests wait wherever they wait: with nobody in the engine's line, eight before it make more replicas."""
    name = ready(world, vllm_num_requests_waiting=4)
    world.node.loads = {"": load(waiting=0.0)}
    world.gateway.waiting = {name: 8}
    asyncio.run(world.until(lambda: world.living == 2))
    world.write(lambda tx: autoscale(tx, DEFAULT_SCOPE, name, read_autoscaling({"concurrent_requests": 3})))
    world.gateway.outstanding = {world.gateway.replicas[0]: 4}
    asyncio.run(world.until(lambda: world.living == 4))


def test_without_a_wish_it_scales_by_the_cpu_and_with_accelerators_by_them_too(world: World) -> None:
    """As Vertex AI does: at sixty percent, of whichever is higher."""
    world.node.memory_bytes = 40 * GIB
    machine = MachineSpec(machine_type="g2-standard-12", accelerator_type="NVIDIA_L4", accelerator_count=1)
    world.deploy(min_replicas=1, max_replicas=2, machine=machine)
    asyncio.run(world.until(lambda: world.gateway.replicas))
    world.node.loads = {"": load(cpu_percent=5.0, accelerator_percent=95.0)}
    asyncio.run(world.until(lambda: world.living == 2))
    assert (world.decided.metric, world.decided.target) == ("accelerator_duty_cycle", 60)


def test_a_fixed_number_stays_and_is_not_measured(world: World) -> None:
    """Where the two bounds are equal nothing is decided, however much there is to do."""
    name = ready(world, least=2, most=2, request_count=1)
    world.gateway.per_minute = {name: 10_000}
    asyncio.run(world.turns(60))
    assert (world.living, world.deployment.scaling) == (2, None)
    assert [order.measured for order in world.node.orders.replicas] == [False, False]


def test_what_is_not_known_takes_nothing_away(world: World) -> None:
    """While the node does not measure one of two replicas, or the gateway is away, both run on."""
    name = ready(world, most=2, cpu_utilization=60)
    world.node.loads = {"": load(cpu_percent=100.0)}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    world.node.loads = {world.gateway.replicas[0]: load(cpu_percent=0.0)}
    asyncio.run(world.turns(150))
    assert world.living == 2
    assert "not known of every replica" in world.decided.why
    world.write(lambda tx: autoscale(tx, DEFAULT_SCOPE, name, read_autoscaling({"request_count": 5}, LOWER_AFTER_S)))
    world.gateway.away = True
    asyncio.run(world.turns(150))
    assert world.living == 2
    world.gateway.away = False
    asyncio.run(world.until(lambda: world.living == 1, at_most=200))


def test_a_restart_of_control_scales_nothing_twice_and_shrinks_nothing_early(world: World) -> None:
    """What was decided stands in the row: after a restart at any moment it is so, and the time of quiet begins anew."""
    name = ready(world, request_count=60)
    world.gateway.per_minute = {name: 180}
    asyncio.run(world.until(lambda: world.decided.replicas == 3))
    world.restart_control()
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 3))
    asyncio.run(world.turns(30))
    assert (world.living, len(world.node.started)) == (3, 3)
    world.gateway.per_minute = {}
    asyncio.run(world.turns(50))
    world.restart_control()
    asyncio.run(world.turns(50))
    assert world.living == 3
    asyncio.run(world.until(lambda: world.living == 1, at_most=200))


def test_without_room_it_says_so_and_stays_as_it_is(world: World) -> None:
    """Three are wanted and two fit: two serve, the deployment is READY and tells what the third waits for."""
    name = ready(world, request_count=60)
    world.node.memory_bytes = 9 * GIB
    world.gateway.per_minute = {name: 180}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    asyncio.run(world.turns(20))
    assert (world.decided.replicas, world.living, world.deployment.state) == (3, 2, DeploymentState.READY)
    assert world.decided.pending.startswith("A replica needs 4.00 GiB of memory and node local has 1.00 GiB free.")
    world.node.memory_bytes = 20 * GIB
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 3, at_most=90))
    assert world.decided.pending == ""


def test_the_one_that_is_taken_away_ends_with_its_last_request(world: World) -> None:
    """It is the youngest, out of the snapshot first, and not stopped while a stream runs on it."""
    name = ready(world, most=2, request_count=60)
    world.gateway.per_minute = {name: 120}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    first, second = sorted(world.rows(Replica, state=LIVE), key=lambda one: one.epoch)
    world.gateway.per_minute, world.gateway.outstanding = {}, {second.id: 1}
    asyncio.run(world.until(lambda: world.gateway.replicas == [first.id], at_most=200))
    asyncio.run(world.turns(20))
    assert [order.wanted for order in world.node.orders.replicas] == ["run", "run"]
    world.gateway.outstanding = {}
    asyncio.run(world.until(lambda: world.living == 1))


def test_an_engine_that_dies_is_replaced_and_counts_as_none_that_was_taken_away(world: World) -> None:
    """The number that should run outlives the replicas: two are there again, without a decision."""
    name = ready(world, most=2, request_count=60)
    world.gateway.per_minute = {name: 120}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    moves = len([move for move in world.timeline(name) if "from now on" in move.detail])
    for replica in world.gateway.replicas:
        world.node.kill(replica, failure(EngineDied))
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    assert len([move for move in world.timeline(name) if "from now on" in move.detail]) == moves


def test_asleep_it_is_forgotten_and_awake_it_begins_with_the_fewest(world: World) -> None:
    """From two replicas to none when nobody asks; the request that wakes it gets one, and more come as before."""
    name = ready(world, most=2, request_count=60)
    world.gateway.per_minute = {name: 120}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
    world.write(lambda tx: scale_to_zero(tx, DEFAULT_SCOPE, name, 30.0))
    world.gateway.per_minute, world.gateway.idle_s = {}, {name: 31.0}
    asyncio.run(world.until_state("ASLEEP"))
    asyncio.run(world.until(lambda: world.living == 0))
    world.gateway.idle_s, world.gateway.waiting = {}, {name: 1}
    asyncio.run(world.until(lambda: world.gateway.replicas))
    assert (world.living, world.deployment.wanted_replicas) == (1, 1)
    world.gateway.waiting, world.gateway.per_minute = {}, {name: 120}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))


def test_it_begins_and_wakes_with_as_many_as_were_asked_for(world: World) -> None:
    """Three of one to four are asked for at first: so many run, fewer once they have nothing to do; three wake it."""
    world.node.memory_bytes = 40 * GIB
    wish = Autoscaling(targets=(MetricTarget(Metric.REQUESTS, 60),), lower_after_s=LOWER_AFTER_S)
    numbers = {"min_replicas": 1, "max_replicas": 4, "initial_replicas": 3}
    world.deploy(**numbers, autoscaling=wish, scale_to_zero_after_s=300.0)
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 3))
    name = world.deployment.id
    asyncio.run(world.until(lambda: world.living == 1, at_most=300))
    world.gateway.idle_s = {name: 301.0}
    asyncio.run(world.until_state("ASLEEP"))
    world.gateway.idle_s, world.gateway.waiting = {}, {name: 1}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 3))


@pytest.mark.parametrize("first", [-1, 1, 5])
def test_it_begins_with_no_number_out_of_its_bounds(world: World, first: int) -> None:
    """Of two to four replicas neither one nor five can be the first."""
    with pytest.raises(BadField, match="at first"):
        world.deploy(min_replicas=2, max_replicas=4, initial_replicas=first)


def test_bounds_are_changed_while_it_runs(world: World) -> None:
    """What runs stays where it may; a smaller most holds at once; equal bounds end the deciding."""
    name = ready(world, request_count=60)
    world.gateway.per_minute = {name: 240}
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 4))
    world.write(lambda tx: resize(tx, DEFAULT_SCOPE, name, least=1, most=3))
    asyncio.run(world.until(lambda: world.living == 3))
    world.write(lambda tx: resize(tx, DEFAULT_SCOPE, name, least=2, most=2))
    asyncio.run(world.until(lambda: world.living == 2))
    assert world.deployment.scaling is None
    world.write(lambda tx: resize(tx, DEFAULT_SCOPE, name, least=1, most=4))
    assert world.deployment.wanted_replicas == 2
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 4))


@pytest.mark.parametrize(
    ("targets", "lower_after_s", "says"),
    [
        ({"gpu": 60}, 60.0, "vllm_num_requests_waiting"),
        ({"cpu_utilization": 101}, 60.0, "1 to 100"),
        ({"cpu_utilization": -1}, 60.0, "1 to 100"),
        ({"request_count": 0}, 60.0, "1 to 2147483647"),
        ({"request_count": 2**31}, 60.0, "1 to 2147483647"),
        ({}, 9.0, "10 to 3600"),
        ({}, float("nan"), "10 to 3600"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(targets: dict[str, int], lower_after_s: float, says: str) -> None:
    """With what there is instead."""
    with pytest.raises(BadField) as caught:
        read_autoscaling(targets, lower_after_s)
    assert says in caught.value.failure.fix


def test_a_percentage_without_a_target_is_sixty() -> None:
    """Vertex AI's default."""
    assert read_autoscaling({"vllm_gpu_cache_usage_perc": 0}).targets == (MetricTarget(Metric.KV_CACHE, 60),)


def test_an_external_server_does_not_scale(world: World) -> None:
    """It is one replica, and not ours to start."""
    server = ExternalServer(base_url="https://api.example.com/v1", model="m", anywhere=False)
    spec = ServingSpec(runtime="external", external=server)
    with pytest.raises(BadField):
        world.deploy(artifact_uri="https://api.example.com/v1", spec=spec, autoscaling=Autoscaling())
