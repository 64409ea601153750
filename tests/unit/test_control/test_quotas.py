"""Quotas: four small, two medium or one large deployment, whoever asks at the same time."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import World

from headrace.control.commands import DeployRequest, deploy, set_quota, usage
from headrace.hardware import read_catalogue
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.errors import BadField, BadName, HeadraceError, QuotaExceeded
from headrace.resources.names import DEFAULT_LOCATION, Scope
from headrace.resources.quotas import Quota
from headrace.resources.states import DeploymentState
from headrace.store import Transaction

SHARES = {"WX-S": Fraction(1, 4), "WX-M": Fraction(1, 2), "WX-L": Fraction(1)}
L4 = MachineSpec(machine_type="g2-standard-4", accelerator_type="NVIDIA_L4", accelerator_count=1)
_projects = itertools.count()


def ask(world: World, size: str, project: str = "p", **more: object) -> None:
    """Deploy something of this size."""
    request = DeployRequest(
        scope=Scope(project, DEFAULT_LOCATION),
        artifact_uri="file:///weights/smol",
        contract="native/v1",
        machine=MachineSpec(machine_type=size),
        **more,  # type: ignore[arg-type]
    )
    with world.store.transaction() as tx:
        deploy(tx, request, now=1.0)


def taken(world: World, project: str = "p") -> float:
    """What the project takes."""
    with world.store.transaction(read_only=True) as tx:
        return usage(tx, project, read_catalogue()).used


@pytest.mark.parametrize("sizes", [["WX-S"] * 4, ["WX-M"] * 2, ["WX-L"], ["WX-M", "WX-S", "wx-s"]], ids="+".join)
def test_a_quota_is_four_small_two_medium_or_one_large(world: World, sizes: list[str]) -> None:
    """So many are taken, and the next, however small, is refused with the shares that are taken and asked for."""
    for size in sizes:
        ask(world, size)
    with pytest.raises(QuotaExceeded) as caught:
        ask(world, "WX-S")
    assert f"{len(sizes)} deployments take 1 of 1 shares; a WX-S takes 0.25" in caught.value.evidence
    assert len(world.rows(Deployment)) == len(sizes)
    ask(world, "WX-L", project="another")


def test_replicas_and_machine_types_take_nothing_more(world: World) -> None:
    """A deployment counts once, and one on a machine type not at all."""
    ask(world, "WX-M", min_replicas=3, max_replicas=5)
    for _ in range(3):
        world.deploy(machine=L4)
    assert taken(world) == 0.5


def test_what_failed_or_is_gone_gives_its_share_back_and_what_drains_does_not(world: World) -> None:
    """Until nothing of it runs."""
    ask(world, "WX-L")
    (row,) = world.rows(Deployment)
    for state, used in (("CHECKING", 1.0), ("DRAINING", 1.0), ("GONE", 0.0)):
        row = world.write(lambda tx, row=row, state=state: tx.move(row, DeploymentState(state)))
        assert taken(world) == used
    ask(world, "WX-L")
    fresh = next(one for one in world.rows(Deployment) if one.state == "ACCEPTED")
    world.write(lambda tx: tx.move(fresh, DeploymentState.FAILED))
    assert taken(world) == 0.0


def test_an_operator_changes_it_and_what_runs_goes_on(world: World) -> None:
    """More room at once; less takes effect on the next; each change is a version of the row."""
    ask(world, "WX-L")
    world.write(lambda tx: set_quota(tx, "p", 1.5, now=2.0))
    ask(world, "WX-M")
    world.write(lambda tx: set_quota(tx, "p", 0.0, now=3.0))
    with pytest.raises(QuotaExceeded, match="no room"):
        ask(world, "WX-S")
    assert taken(world) == 1.5
    assert [(quota.shares, quota.resource_version) for quota in world.rows(Quota)] == [(0.0, 2)]


@pytest.mark.parametrize("shares", [-0.25, float("nan"), float("inf"), 1e9])
def test_what_is_no_number_of_shares_is_refused(world: World, shares: float) -> None:
    """Nothing is stored."""
    with pytest.raises(BadField):
        world.write(lambda tx: set_quota(tx, "p", shares, now=1.0))
    with pytest.raises(BadName):
        world.write(lambda tx: set_quota(tx, "No Name", 1.0, now=1.0))
    assert world.rows(Quota) == []


@pytest.mark.parametrize(
    "machine",
    [
        msgspec.structs.replace(L4, accelerator_type="NVIDIA_TESLA_T4"),
        msgspec.structs.replace(L4, accelerator_count=2),
        msgspec.structs.replace(L4, machine_type="n1-standard-8"),
        msgspec.structs.replace(L4, machine_type="WX-S"),
        msgspec.structs.replace(L4, machine_type="g2-standart-4"),
    ],
    ids=lambda machine: f"{machine.machine_type} with {machine.accelerator_count} {machine.accelerator_type}",
)
def test_a_machine_that_does_not_exist_is_refused_with_those_that_do(world: World, machine: MachineSpec) -> None:
    """Accelerators that the machine type lacks, a number that it does not offer, a type that nobody has."""
    with pytest.raises(BadField) as caught:
        world.deploy(machine=machine)
    assert (caught.value.status, caught.value.http_status) == ("INVALID_ARGUMENT", 400)
    assert caught.value.evidence
    assert caught.value.fix
    assert world.rows(Deployment) == []


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.sampled_from(sorted(SHARES)), max_size=10), quota=st.sampled_from([0.25, 1.0, 1.75]))
def test_nobody_gets_a_share_that_another_has(world: World, sizes: list[str], quota: float) -> None:
    """Asked all at once: what was let in is within the quota, and what was refused would not be."""
    project = f"p{next(_projects)}"
    world.write(lambda tx: set_quota(tx, project, quota, now=1.0))

    def one(size: str) -> HeadraceError | None:
        try:
            ask(world, size, project)
        except QuotaExceeded as refusal:
            return refusal
        return None

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(one, sizes))
    let_in = sum((SHARES[size] for size, refused in zip(sizes, outcomes, strict=True) if not refused), Fraction(0))
    assert let_in <= quota
    assert taken(world, project) == let_in
    for size, refused in zip(sizes, outcomes, strict=True):
        assert not refused or let_in + SHARES[size] > quota


def test_the_store_alone_decides(world: World) -> None:
    """A transaction that was rolled back has taken nothing."""

    def work(tx: Transaction) -> None:
        request = DeployRequest(
            scope=Scope("p", DEFAULT_LOCATION),
            artifact_uri="/w",
            contract="native/v1",
            machine=MachineSpec(machine_type="WX-L"),
        )
        deploy(tx, request, now=1.0)
        raise KeyError

    with pytest.raises(KeyError):
        world.write(work)
    ask(world, "WX-L")
