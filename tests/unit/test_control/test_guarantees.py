"""From a throughput that is sold to the replicas that carry it: packed together, counted anew, never oversold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from provisioned import (
    CHUNK,
    carried,
    carrying,
    change,
    oversold,
    prepare,
    route_of,
    routed_beyond,
    sell,
    take_off,
)
from scripted import GIB, World

from headrace.control.commands import VersionRequest, deploy_version, resize, scale_to_zero
from headrace.control.guarantees import IDLE_S, take_carried
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, HeadraceError, NotSupported, ThroughputTooHigh
from headrace.resources.names import DEFAULT_SCOPE as SCOPE
from headrace.resources.operations import Operation
from headrace.resources.profiles import Carried, Provision
from headrace.resources.states import DeploymentState, OperationState
from headrace.resources.throughput import Chunks, Wish, read_throughput


@pytest.fixture(autouse=True)
def _carries() -> Iterator[None]:
    with carrying(carried()):
        yield


def bounds(world: World) -> tuple[int, int]:
    """Of the newest deployment."""
    return world.deployment.min_replicas, world.deployment.max_replicas


def measure(world: World, one: Carried) -> None:
    """Have every deployment's replicas found to carry so much."""
    for deployment in world.rows(Deployment):
        world.write(lambda tx, deployment=deployment: take_carried(tx, deployment, one))


def until_done(world: World, *operations: Operation) -> None:
    """Turn until all of them are, well."""
    asyncio.run(world.until(lambda: all(world.operation(one).state is OperationState.SUCCEEDED for one in operations)))


@pytest.mark.parametrize(
    ("least", "most", "replicas"),
    [(1, 1, (1, 1)), (4, 4, (1, 1)), (2, 4, (1, 1)), (5, 5, (2, 2)), (4, 9, (1, 3)), (0, 8, (1, 2))],
)
def test_replicas_follow_from_the_throughput(world: World, least: int, most: int, replicas: tuple[int, int]) -> None:
    """As many as carry what is guaranteed, up to as many as carry what is admitted; a chunk is a fourth of one."""
    prepare(world, "e")
    sell(world, "e", least, most)
    assert bounds(world) == replicas
    (deployed,) = world.bindings
    assert deployed.provision == Provision(min_tokens_per_s=least * CHUNK, max_tokens_per_s=most * CHUNK, chunk=CHUNK)
    assert world.deployment.carried == carried()


def test_guarantees_pack_on_one_deployment_and_the_rest_shrink(world: World) -> None:
    """Two halves and a quarter take two replicas, two halves one; one that goes leaves what the others need."""
    prepare(world, "a", "b", "c")
    until_done(world, sell(world, "a", 2, 2), sell(world, "b", 2, 2))
    assert (len(world.rows(Deployment)), bounds(world)) == (1, (1, 1))
    until_done(world, sell(world, "c", 1, 1))
    assert (len(world.rows(Deployment)), bounds(world)) == (1, (2, 2))
    assert [route_of(world, name).guaranteed for name in "abc"] == pytest.approx([200 / 410, 200 / 410, 100 / 410])
    take_off(world, "b")
    assert bounds(world) == (1, 1)
    asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))  # one replica, behind each of two endpoints
    assert not oversold(world)


def test_what_was_sold_shares_with_nothing_that_was_not(world: World) -> None:
    """Nor the other way round: how many replicas the others take nobody knows."""
    prepare(world, "a", "b", "c")
    plain = VersionRequest(scope=SCOPE, contract="test", endpoint_id="a", model_id="m", version="1")
    world.write(lambda tx: deploy_version(tx, plain, now=world.clock.now))
    sell(world, "b", 1, 1)
    assert len(world.rows(Deployment)) == 2
    sell(world, "c", 1, 1)
    assert len(world.rows(Deployment)) == 2


def test_what_would_not_fit_beside_the_others_does_not_join(world: World) -> None:
    """Ten replicas have room: beside nine, two more get a deployment of their own, which waits for the room."""
    prepare(world, "a", "b")
    until_done(world, sell(world, "a", 36, 36))
    sell(world, "b", 8, 8)
    assert len(world.rows(Deployment)) == 2


@pytest.mark.parametrize("known", [False, True])
def test_what_is_sold_at_once_joins_no_further_than_there_is_room(world: World, known: bool) -> None:
    """Nobody has checked the deployment yet, and still six together are not more than the ten replicas that fit."""
    prepare(world, *"abcdef", "g")
    if known:
        until_done(world, sell(world, "g", 4, 4))
        take_off(world, "g")
        asyncio.run(world.until_state(DeploymentState.GONE))
    for name in "abcdef":
        sell(world, name, 16, 16)
    asyncio.run(world.turns(5))
    open_ones = [one for one in world.rows(Deployment) if one.state is not DeploymentState.GONE]
    assert max(one.min_replicas for one in open_ones) <= 10
    assert len(open_ones) == (3 if known else 6)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (Provision(min_tokens_per_s=150, max_tokens_per_s=200, chunk=0), "100 or 200"),
        (Provision(min_tokens_per_s=100, max_tokens_per_s=330, chunk=0), "300 or 400"),
        (Chunks(2, 1), "100:100"),
        (Chunks(0, 0), "0:100"),
        (Provision(min_tokens_per_s=-100, max_tokens_per_s=100, chunk=0), "100:100"),
    ],
)
def test_a_throughput_that_makes_no_sense_is_refused(world: World, wish: Wish, says: str) -> None:
    """With what can be asked for instead; nothing is stored."""
    prepare(world, "e")
    request = VersionRequest(scope=SCOPE, contract="t", endpoint_id="e", model_id="m", version="1", provision=wish)
    with pytest.raises(BadField) as caught:
        world.write(lambda tx: deploy_version(tx, request, now=world.clock.now))
    assert says in caught.value.failure.fix
    assert (world.rows(Deployment), world.bindings) == ([], [])


def test_numbers_of_replicas_beside_a_throughput_are_refused(world: World) -> None:
    """And so they are afterwards: its throughput decides, and whether it sleeps too."""
    prepare(world, "e")
    with pytest.raises(BadField):
        sell(world, "e", 1, 1, min_replicas=2, max_replicas=2)
    sell(world, "e", 1, 1)
    name = world.deployment.id
    with pytest.raises(BadField, match="throughput"):
        world.write(lambda tx: resize(tx, SCOPE, name, least=3))
    with pytest.raises(BadField, match="throughput"):
        world.write(lambda tx: scale_to_zero(tx, SCOPE, name, 60.0))


def test_more_than_the_machine_can_ever_carry_is_refused_with_the_most(world: World) -> None:
    """At once where a replica's memory is known; else as soon as the check has told it."""
    prepare(world, "e", "f")
    first = sell(world, "e", 44, 44)
    asyncio.run(world.until_state("FAILED"))
    failed = world.operation(first).failure
    assert failed is not None
    assert (failed.code, "4,100" in failed.fix) == ("THROUGHPUT_TOO_HIGH", True)
    with pytest.raises(ThroughputTooHigh) as caught:
        sell(world, "f", 0, 42)
    assert "Ask for 4,100 at most" in caught.value.failure.fix
    sell(world, "f", 0, 41)
    assert world.deployment.max_replicas == 10


def test_replicas_that_would_share_cores_carry_no_more(world: World) -> None:
    """Measured with both cores of the machine, a replica is all that it carries, however much memory is left."""
    prepare(world, "e", "f")
    asyncio.run(world.turns(1))  # the node tells of itself
    with carrying(msgspec.structs.replace(carried(), cores=2)):
        with pytest.raises(ThroughputTooHigh) as caught:
            sell(world, "e", 0, 5)
        assert "2 of 2 cores" in caught.value.evidence
        assert "Ask for 400 at most" in caught.value.fix
        for name in ("e", "f"):
            until_done(world, sell(world, name, 2, 4))
            assert bounds(world) == (1, 1)
    with carrying(msgspec.structs.replace(carried(), cores=1)), pytest.raises(ThroughputTooHigh, match="1,000"):
        sell(world, "f", 0, 10)


def test_of_nothing_guaranteed_it_scales_to_zero_and_a_guarantee_wakes_it(world: World) -> None:
    """After half an hour by default; once somebody who shares it has a guarantee it sleeps no more."""
    prepare(world, "a", "b")
    until_done(world, sell(world, "a", 0, 1))
    assert world.deployment.scale_to_zero_after_s == IDLE_S
    world.gateway.idle_s = {world.deployment.id: IDLE_S + 1}
    asyncio.run(world.until_state("ASLEEP"))
    second = sell(world, "b", 1, 1)
    assert (world.deployment.state, world.deployment.scale_to_zero_after_s) == (DeploymentState.PLACING, 0.0)
    until_done(world, second)
    take_off(world, "b")
    assert world.deployment.scale_to_zero_after_s == IDLE_S


def test_a_measurement_changes_the_replicas_and_not_what_was_sold(world: World) -> None:
    """Sold by a prediction of 410 tokens a second, measured at 250: two replicas carry what one was to."""
    with carrying(carried(measured=False)):
        prepare(world, "e")
        until_done(world, sell(world, "e", 4, 4))
        assert bounds(world) == (1, 1)
        measure(world, carried(250.0))
        assert bounds(world) == (2, 2)
        asyncio.run(world.until(lambda: len(world.gateway.replicas) == 2))
        assert route_of(world, "e").guaranteed == pytest.approx(400 / 250)
        measure(world, carried(measured=False))
        assert world.deployment.carried == carried(250.0), "a prediction takes no measurement's place"


def test_a_row_that_was_measured_by_others_is_followed(world: World) -> None:
    """Whoever writes what a replica carries: the reconciler's next pass counts the replicas anew."""
    prepare(world, "e")
    until_done(world, sell(world, "e", 4, 4))

    deployment = world.deployment
    world.write(lambda tx: tx.move(deployment, deployment.state, carried=carried(150.0)))
    asyncio.run(world.turn())
    assert bounds(world) == (3, 3)


def test_a_throughput_is_changed_without_a_restart(world: World) -> None:
    """Less at once; more once the replicas for it are READY, and until then the old one holds at the gateway."""
    prepare(world, "e")
    until_done(world, sell(world, "e", 4, 4))
    (before,) = world.replicas
    more = change(world, "e", 8, 8)
    assert (bounds(world), world.operation(more).state) == ((2, 2), OperationState.RUNNING)
    asyncio.run(world.turn())
    assert route_of(world, "e").guaranteed == pytest.approx(400 / 410)
    until_done(world, more)
    asyncio.run(world.turn())
    assert route_of(world, "e").guaranteed == pytest.approx(800 / 410)
    less = change(world, "e", 1, 2)
    assert (bounds(world), world.operation(less).state) == ((1, 1), OperationState.SUCCEEDED)
    asyncio.run(world.until(lambda: world.gateway.replicas == [before.id]))


def test_a_newer_wish_takes_an_older_ones_place(world: World) -> None:
    """The older one's operation says so, and its replicas are not waited for."""
    prepare(world, "e")
    until_done(world, sell(world, "e", 4, 4))
    older = change(world, "e", 32, 32)
    assert bounds(world) == (8, 8)
    newer = change(world, "e", 6, 6)
    failed = world.operation(older).failure
    assert (bounds(world), failed and failed.code) == ((2, 2), "CANCELLED")
    until_done(world, newer)
    assert world.bindings[0].provision == Provision(min_tokens_per_s=600, max_tokens_per_s=600, chunk=CHUNK)


def test_what_was_deployed_without_a_throughput_cannot_be_sold_one(world: World) -> None:
    """It is deployed once more, with one."""
    prepare(world, "e")
    plain = VersionRequest(scope=SCOPE, contract="test", endpoint_id="e", model_id="m", version="1")
    world.write(lambda tx: deploy_version(tx, plain, now=world.clock.now))
    with pytest.raises(NotSupported, match="without a throughput"):
        change(world, "e", 1, 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("sell"), st.sampled_from("abcd"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("change"), st.sampled_from("abcd"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("take off"), st.sampled_from("abcd")),
        st.tuples(st.just("measure"), st.floats(40.0, 2000.0)),
        st.tuples(st.just("turn"), st.integers(1, 8)),
    ),
    min_size=1,
    max_size=14,
)


def step(world: World, what: str, *given: Any) -> None:
    """Do one of them, where it can be done; what is refused changes nothing."""
    if what == "turn":
        asyncio.run(world.turns(given[0], seconds=2.0))
    elif what == "measure":
        measure(world, carried(given[0]))
    elif what == "take off":
        if world.rows(DeployedModel, endpoint_id=given[0]):
            take_off(world, given[0])
    else:
        name, least, more = given
        try:
            if world.rows(DeployedModel, endpoint_id=name):
                change(world, name, least, least + more, timeout_s=20.0)
            elif what == "sell":
                sell(world, name, least, least + more, timeout_s=20.0)
        except HeadraceError:
            return


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the worlds of one property live, each in its own folder."""
    with TemporaryDirectory() as name:
        yield Path(name)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_is_sold_changed_measured_or_taken_off_nothing_is_oversold(
    folder: Path, steps: list[tuple[Any, ...]]
) -> None:
    """After every step the guarantees are at most what the replicas carry that should run; and what the gateway is to
    guarantee has its replicas there, unless a measurement has just told that they carry less."""
    with TemporaryDirectory(dir=folder) as name:
        world = World(Path(name))
        world.node.memory_bytes = 6 * GIB
        prepare(world, "a", "b", "c", "d")
        measured = False
        for what, *rest in steps:
            step(world, what, *rest)
            measured = measured or what == "measure"
            assert not oversold(world)
            assert measured or not routed_beyond(world)
        world.store.close()


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_a_throughput_is_read_as_it_is_written(least: int, most: int, chunks: bool) -> None:
    """In tokens a second or in chunks; one number is both."""
    mark = "x" if chunks else ""
    read = read_throughput(f"{least}{mark}:{most}{mark}")
    assert read == (
        Chunks(least, most) if chunks else Provision(min_tokens_per_s=least, max_tokens_per_s=most, chunk=0)
    )
    assert read_throughput(f"{most}{mark}") == read_throughput(f"{most}{mark}:{most}{mark}")


@given(st.one_of(st.text(max_size=12), st.text("0123456789x:", max_size=8)))
def test_what_is_no_throughput_is_refused(text: str) -> None:
    """Whatever is read has its numbers in plain digits, and chunks on both sides or on none."""
    try:
        read = read_throughput(text)
    except BadField:
        return
    parts = text.split(":")
    chunks = isinstance(read, Chunks)
    assert all(part.removesuffix("x").isdigit() and part.endswith("x") is chunks for part in parts)
    numbers = (read.least, read.most) if isinstance(read, Chunks) else (read.min_tokens_per_s, read.max_tokens_per_s)
    assert numbers == (int(parts[0].removesuffix("x")), int(parts[-1].removesuffix("x")))
