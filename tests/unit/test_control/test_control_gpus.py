"""Whose the GPUs of a node are."""

from __future__ import annotations

import asyncio
from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import GIB, World, failure

from headrace.control.placement import Need, Room
from headrace.control.room import need_here, room_for
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.errors import EngineDied
from headrace.resources.models import ServingSpec
from headrace.resources.states import ReplicaState

L4 = 24 * GIB


def _deploy(
    world: World, gibibytes: int, *, until: str = "READY", devices: int = 1, runtime: str = "vllm", **fields: float
) -> None:
    """A deployment whose replicas take so much, of so many GPUs together."""
    needs = {"runtime": runtime, "memory_bytes": gibibytes * GIB}
    world.checker.says = msgspec.structs.replace(world.checker.says, **needs)  # type: ignore[type-var]
    world.deploy(spec=ServingSpec(tensor_parallel=devices), **fields)
    asyncio.run(world.until_state(until))


def _gpus(world: World) -> list[tuple[str, ...]]:
    """Of each replica that runs, the oldest first."""
    return [order.gpus for order in world.node.orders.replicas if order.wanted == "run"]


def test_replicas_get_gpus_of_their_own_and_then_share(world: World) -> None:
    """Each one that nobody computes on; then that with the most memory left; the order says how much of it is theirs,
    and what nobody has room for waits, with what is free."""
    world.node.memory_bytes, world.node.gpus = GIB, (L4, L4)
    for _ in range(2):
        _deploy(world, 6)
    assert _gpus(world) == [("GPU-0",), ("GPU-1",)]
    _deploy(world, 10)
    _deploy(world, 8)
    assert _gpus(world) == [("GPU-0",), ("GPU-1",), ("GPU-0",), ("GPU-1",)]
    assert [order.gpu_bytes // GIB for order in world.node.orders.replicas] == [6, 6, 10, 8]
    (placed,) = [move.detail for move in world.timeline(world.deployment.id) if move.state == "STARTING"]
    assert "on node local, GPU 1, with 8.00 GiB of memory" in placed
    _deploy(world, 8, until="PLACING")
    asyncio.run(world.turns(3))
    last = world.timeline(world.deployment.id)[-1].detail
    assert "needs 8.00 GiB of a GPU's memory" in last
    assert "5.60 GiB of 21.60 GiB on GPU-0, 7.60 GiB of 21.60 GiB on GPU-1" in last


def test_a_replica_of_many_gpus_has_its_part_on_each(world: World) -> None:
    """Two are taken for it, both are told to its engine, and what is left of each is another's."""
    world.node.gpus = (L4, L4, L4)
    _deploy(world, 10)
    _deploy(world, 30, devices=2)
    assert _gpus(world) == [("GPU-0",), ("GPU-1", "GPU-2")]
    _deploy(world, 42, devices=2, until="PLACING")
    asyncio.run(world.turns(3))
    assert "needs 21.00 GiB of the memory of each of 2 GPUs" in world.timeline(world.deployment.id)[-1].detail


def test_of_unequal_gpus_a_replica_gets_the_smallest_that_is_free(world: World) -> None:
    """So that the large one is left for who needs it."""
    world.node.gpus = (80 * GIB, L4)
    _deploy(world, 6)
    _deploy(world, 60)
    _deploy(world, 6)
    assert _gpus(world) == [("GPU-1",), ("GPU-0",), ("GPU-1",)]


def test_what_computes_on_the_cpu_is_given_no_gpu(world: World) -> None:
    """It reserves the machine's own memory, beside replicas that reserve the GPUs'."""
    world.node.memory_bytes, world.node.gpus = 10 * GIB, (L4,)
    _deploy(world, 20)
    says = msgspec.structs.replace(world.checker.says, runtime="openvino", memory_bytes=8 * GIB)  # type: ignore[type-var]
    world.checker.says = says
    world.deploy()
    asyncio.run(world.until_state("READY"))
    assert _gpus(world) == [("GPU-0",), ()]
    world.deploy()
    asyncio.run(world.turns(9))
    assert "needs 8.00 GiB of memory and node local has 2.00 GiB free" in world.timeline(world.deployment.id)[-1].detail


def test_what_may_sleep_reserves_the_machines_memory_too(world: World) -> None:
    """An engine that sleeps moves its weights there; one for whose weights there is no room runs and does not sleep."""
    world.node.memory_bytes, world.node.gpus = 10 * GIB, (L4, L4)
    for _ in range(2):
        _deploy(world, 8, scale_to_zero_after_s=60.0)
    assert [order.may_sleep for order in world.node.orders.replicas] == [True, False]
    says = msgspec.structs.replace(world.checker.says, runtime="openvino", memory_bytes=4 * GIB)  # type: ignore[type-var]
    world.checker.says = says
    world.deploy()
    asyncio.run(world.turns(9))
    assert "needs 4.00 GiB of memory and node local has 2.00 GiB free" in world.timeline(world.deployment.id)[-1].detail


def test_what_does_not_fit_into_the_machine_does_not_sleep_there(world: World) -> None:
    """Its engine ends when nobody asks, and reserves no memory for its weights; so does one that cannot sleep."""
    world.node.memory_bytes, world.node.gpus, world.node.sleeps = 10 * GIB, (L4, L4, L4), True
    _deploy(world, 12, scale_to_zero_after_s=60.0)
    _deploy(world, 8, runtime="transformers", scale_to_zero_after_s=60.0)
    _deploy(world, 8, scale_to_zero_after_s=60.0)
    assert [order.may_sleep for order in world.node.orders.replicas] == [False, False, True]


def test_who_is_told_to_scale_to_zero_later_keeps_nobody_from_a_gpu(world: World) -> None:
    """What it reserves of the machine's memory then may be more than there is; a GPU's is another matter."""
    world.node.memory_bytes, world.node.gpus = 10 * GIB, (L4, L4, L4)
    for _ in range(2):
        _deploy(world, 8)
    for pool in world.rows(Deployment):
        world.write(lambda tx, pool=pool: tx.update(msgspec.structs.replace(pool, scale_to_zero_after_s=60.0)))
    _deploy(world, 8)
    assert _gpus(world) == [("GPU-0",), ("GPU-1",), ("GPU-2",)]
    (lost,) = [order.id for order in world.node.orders.replicas if order.gpus == ("GPU-1",)]
    world.node.kill(lost, failure(EngineDied))
    asyncio.run(world.until(lambda: lost not in world.node.replicas and len(_gpus(world)) == 3))


def test_a_replica_of_many_gpus_has_equal_ones(world: World) -> None:
    """An engine takes the same of each: of the larger it would take what was not set aside."""
    world.node.gpus = (80 * GIB, L4, L4)
    _deploy(world, 30, devices=2)
    assert _gpus(world) == [("GPU-1", "GPU-2")]
    _deploy(world, 60, devices=2, until="PLACING")


def test_replicas_of_before_are_counted_on_the_first_gpu(world: World) -> None:
    """They were started without a GPU of their own, and CUDA takes the first."""
    world.node.gpus = (L4, L4)
    _deploy(world, 18)
    (old,) = world.replicas
    world.write(lambda tx: tx.update(msgspec.structs.replace(old, gpus=())))
    for _ in range(2):
        _deploy(world, 8)
    assert _gpus(world) == [(), ("GPU-1",), ("GPU-1",)]


@pytest.mark.parametrize(
    "told",
    [[{"name": "L4"}], [{}, {}], [{"uuid": "GPU-0", "memory_total_bytes": "much"}], [{"uuid": "GPU-0"}]],
    ids=str,
)
def test_a_node_that_tells_too_little_of_its_gpus_gives_none_away(world: World, told: list[dict[str, object]]) -> None:
    """Its engines see what it sees, and the machine's memory is what counts."""
    world.node.hardware = {"gpus": told}
    _deploy(world, 4)
    assert _gpus(world) == [()]


def test_a_gpu_that_is_divided_is_not_given_whole(world: World) -> None:
    """What instances of it are free nobody knows."""
    world.node.gpus = (L4, L4)
    [first, second] = world.node.report(1.0).hardware["gpus"]
    world.node.hardware = {"gpus": [first | {"divided": True}, second]}
    for _ in range(2):
        _deploy(world, 8)
    assert _gpus(world) == [("GPU-1",)] * 2


def test_an_engine_that_sleeps_gives_its_gpu_to_who_needs_it(world: World) -> None:
    """It keeps what it reserved until somebody has no room elsewhere, and is stopped then; no other is."""
    world.node.memory_bytes, world.node.gpus, world.node.sleeps = 64 * GIB, (L4, L4), True
    for _ in range(2):
        _deploy(world, 20, scale_to_zero_after_s=60.0)
    sleeper = world.deployment.id
    world.gateway.idle_s = {sleeper: 61.0}
    asyncio.run(world.until(lambda: world.rows(Replica, state=ReplicaState.ASLEEP)))
    _deploy(world, 12)
    assert [one.gpus for one in world.rows(Replica, deployment_id=world.deployment.id)] == [("GPU-1",)]
    assert not world.rows(Replica, state=ReplicaState.ASLEEP)
    assert len(_gpus(world)) == 2


def test_only_as_many_sleepers_are_stopped_as_are_in_the_way(world: World) -> None:
    """The one that came first does not have to go for what it does not help."""
    world.node.memory_bytes, world.node.gpus, world.node.sleeps = 64 * GIB, (L4, L4), True
    _deploy(world, 14)
    first = world.deployment.id
    _deploy(world, 20, scale_to_zero_after_s=60.0)
    helps = world.deployment.id
    _deploy(world, 7, scale_to_zero_after_s=60.0)
    small = world.deployment.id
    assert [one.gpus for one in world.rows(Replica, deployment_id=(first, small))] == [("GPU-0",)] * 2
    world.gateway.idle_s = {helps: 61.0, small: 61.0}
    asyncio.run(world.until(lambda: len(world.rows(Replica, state=ReplicaState.ASLEEP)) == 2))
    _deploy(world, 20)
    assert [one.deployment_id for one in world.rows(Replica, state=ReplicaState.ASLEEP)] == [small]


def test_a_gpu_that_is_gone_is_given_to_nobody(world: World) -> None:
    """What ran on it and failed is placed anew on what is left."""
    world.node.gpus = (L4, L4)
    _deploy(world, 20)
    _deploy(world, 1)
    world.node.gpus = (L4,)
    (lost,) = [order.id for order in world.node.orders.replicas if order.gpus == ("GPU-1",)]
    world.node.kill(lost, failure(EngineDied))
    asyncio.run(world.until(lambda: lost not in world.node.replicas and len(_gpus(world)) == 2))
    assert _gpus(world) == [("GPU-0",), ("GPU-0",)]


def test_a_machine_carries_as_many_replicas_as_its_gpus_hold(world: World) -> None:
    """What is sold goes by that, and not by the machine's own memory."""
    world.node.memory_bytes, world.node.gpus = 1000 * GIB, (L4, L4, 48 * GIB)
    _deploy(world, 10, scale_to_zero_after_s=60.0)
    world.write(lambda tx: _assert_room(tx, world, 2 + 2 + 4))
    _deploy(world, 20, devices=2)
    world.write(lambda tx: _assert_room(tx, world, 2))


def _assert_room(tx: object, world: World, replicas: int) -> None:
    assert room_for(tx, need_here(tx, world.deployment), None) == replicas  # type: ignore[arg-type]


NEEDS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), max_size=12)


@given(gpus=st.lists(st.sampled_from([8, 24]), max_size=4), needs=NEEDS)
def test_what_is_placed_never_exceeds_a_gpu_and_what_has_room_is_placed(
    gpus: list[int], needs: list[tuple[int, int]]
) -> None:
    """Whatever came before: a replica gets as many different GPUs of one size as it needs if so many have room, else
    none."""
    sizes = {f"GPU-{number}": size for number, size in enumerate(gpus)}
    room = Room(0, sizes)
    for devices, each in needs:
        could = any(
            all(room.gpus[gpu] >= each for gpu in some) and len({sizes[gpu] for gpu in some}) == 1
            for some in combinations(sizes, devices)
        )
        chosen = room.place(Need(0, devices, each))
        assert (chosen is not None) == could
        if chosen is not None:
            assert len(set(chosen)) == devices
            room.take(Need(0, devices, each), chosen)
        assert all(free >= 0 for free in room.gpus.values())
