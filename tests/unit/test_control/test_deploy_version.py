"""Registered versions on endpoints that are there: what is shared, who gets traffic, and when an operation is done."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import GIB, World, failure

from headrace.contracts.databricks.kept import with_kept
from headrace.control import Checked
from headrace.control.commands import (
    EndpointRequest,
    VersionRequest,
    create_endpoint,
    delete_endpoint,
    deploy_version,
    mutate_deployed_model,
    set_quota,
    split_traffic,
    start_rollout,
    undeploy,
)
from headrace.control.splits import as_target
from headrace.resources.autoscaling import Autoscaling, Metric, MetricTarget
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import (
    BadField,
    EndpointNotFound,
    NoCapacity,
    NotSupported,
    QuotaExceeded,
    RolloutRunning,
)
from headrace.resources.external import ExternalServer
from headrace.resources.models import Model, ModelVersion, ServingSpec
from headrace.resources.names import DEFAULT_SCOPE as SCOPE
from headrace.resources.operations import Operation
from headrace.resources.rollouts import RolloutPlan
from headrace.resources.states import OperationState

AS_IT_IS = ServingSpec()


def register(world: World, *numbers: str, spec: ServingSpec = AS_IT_IS) -> None:
    """Versions of a model ``m``, as an upload would make them; small ones, so that several have room."""
    assert isinstance(world.checker.says, Checked)
    world.checker.says = msgspec.structs.replace(world.checker.says, memory_bytes=GIB)

    def insert(tx: Any) -> None:
        if tx.get(Model, scope=SCOPE, id="m") is None:
            tx.insert(Model(scope=SCOPE, id="m", display_name="river", created_at=1.0, updated_at=1.0))
        for number in numbers:
            version = ModelVersion(
                scope=SCOPE, model_id="m", version=number, artifact_uri="file:///w", spec=spec, created_at=1.0
            )
            tx.insert(version)

    world.write(insert)


def endpoint(world: World, *names: str) -> None:
    """Endpoints with nothing behind them."""
    for name in names:
        request = EndpointRequest(scope=SCOPE, contract="test", endpoint_id=name, display_name=name)
        world.write(lambda tx, request=request: create_endpoint(tx, request, now=world.clock.now))


def put(world: World, endpoint_id: str, split: dict[str, int] | None = None, **fields: Any) -> Operation:
    """Ask for version 1, or another, on an endpoint, later than for any before it."""
    world.clock.now += 0.001
    request = VersionRequest(
        scope=SCOPE, contract="test", endpoint_id=endpoint_id, model_id="m", version="1", split=split
    )
    request = msgspec.structs.replace(request, **fields)
    operation = world.write(lambda tx: deploy_version(tx, request, now=world.clock.now))
    assert isinstance(operation, Operation)
    return operation


def take_off(world: World, operation: Operation, traffic: dict[str, int] | None = None) -> None:
    """Undeploy what an operation deployed."""
    targets = operation.targets
    world.write(
        lambda tx: undeploy(
            tx,
            SCOPE,
            targets["endpoint"],
            targets["deployed_model"],
            contract="t",
            now=world.clock.now,
            traffic=traffic,
        )
    )


def splits(world: World, endpoint_id: str) -> dict[str, int]:
    """An endpoint's traffic, by deployed model."""
    return {one.id: one.traffic for one in world.rows(DeployedModel, endpoint_id=endpoint_id)}


def done(world: World, operation: Operation) -> bool:
    """Whether it is, well."""
    return world.operation(operation).state is OperationState.SUCCEEDED


def until_done(world: World, *operations: Operation) -> None:
    """Turn until all of them are."""
    asyncio.run(world.until(lambda: all(done(world, one) for one in operations)))


def test_a_version_is_deployed_onto_an_endpoint(world: World) -> None:
    """An endpoint that was empty gives the new model its traffic at once; the operation ends when it is READY."""
    register(world, "1")
    endpoint(world, "e")
    operation = put(world, "e", {"0": 100}, display_name="d")
    (deployed,) = world.bindings
    assert (deployed.display_name, deployed.traffic) == ("d", 100)
    assert world.deployment.display_name == "river", "what its engines are called by"
    until_done(world, operation)
    routed = {one.id for route in world.gateway.snapshot.endpoints for one in route.deployed}
    assert routed == {deployed.id}
    assert world.deployment.state == "READY"


def test_two_endpoints_share_one_deployment(world: World) -> None:
    """The same version alike: one deployment, its memory once; the second operation ends when the gateway knows it."""
    register(world, "1")
    endpoint(world, "e", "f")
    until_done(world, put(world, "e", {"0": 100}))
    second = put(world, "f", {"0": 100})
    assert len(world.rows(Deployment)) == 1
    assert not done(world, second), "no request that comes to it now would find it"
    asyncio.run(world.turn())
    until_done(world, second)
    by_endpoint = {route.id: route.deployed for route in world.gateway.snapshot.endpoints}
    assert by_endpoint["e"][0].replicas == by_endpoint["f"][0].replicas
    assert by_endpoint["f"][0].id == second.targets["deployed_model"]
    assert len(world.replicas) == 1
    told = [move.detail for move in world.timeline(world.deployment.id)]
    assert any("Endpoint f shares it" in detail for detail in told)


@pytest.mark.parametrize(
    "other",
    [
        {"version": "2"},
        {"min_replicas": 2, "max_replicas": 2},
        {"max_replicas": 2},
        {"machine": MachineSpec(machine_type="n1-standard-4")},
        {"scale_to_zero_after_s": 300.0},
        {"settings": {"serviceAccount": "a@b"}},
        {"own": True},
    ],
    ids=str,
)
def test_what_is_not_alike_is_not_shared(world: World, other: dict[str, Any]) -> None:
    """Another version, machine, scale or setting, or the wish for one of its own, makes a deployment."""
    register(world, "1", "2")
    endpoint(world, "e", "f")
    put(world, "e")
    put(world, "f", **other)
    assert len(world.rows(Deployment)) == 2


def allow(world: World, endpoint_id: str, *granted: tuple[str, str]) -> None:
    """Give an endpoint an access list."""
    lines = [{"key_id": key_id, "name": key_id, "level": level} for key_id, level in granted]

    def keep(tx: Any) -> None:
        found = tx.get(Endpoint, scope=SCOPE, id=endpoint_id)
        tx.update(msgspec.structs.replace(found, kept=with_kept(found.kept, {"permissions": lines})))

    world.write(keep)


@pytest.mark.parametrize(
    ("first", "second", "deployments"),
    [
        ((("a", "CAN_MANAGE"), ("b", "CAN_QUERY")), (("b", "CAN_QUERY"), ("a", "CAN_MANAGE")), 1),
        ((("a", "CAN_MANAGE"),), (("b", "CAN_MANAGE"),), 2),
        ((("a", "CAN_MANAGE"),), (("a", "CAN_VIEW"),), 2),
        ((), (), 1),
        ((), None, 2),
        (None, (), 2),
    ],
    ids=str,
)
def test_who_may_not_see_an_endpoint_does_not_share_its_deployment(
    world: World, first: tuple[Any, ...] | None, second: tuple[Any, ...] | None, deployments: int
) -> None:
    """Nor lock those out who may: only endpoints on whose access lists the same keys are have one together."""
    register(world, "1")
    endpoint(world, "e", "f")
    for name, granted in (("e", first), ("f", second)):
        if granted is not None:
            allow(world, name, *granted)
        put(world, name)
    assert len(world.rows(Deployment)) == deployments


def test_settings_are_compared_too(world: World) -> None:
    """The same settings share, and one endpoint never has a deployment twice."""
    register(world, "1")
    endpoint(world, "e", "f")
    fields: dict[str, Any] = {
        "settings": {"serviceAccount": "a@b"},
        "machine": MachineSpec(machine_type="n1-standard-4"),
    }
    for name in ("e", "f", "f"):
        put(world, name, **fields)
    shared = [one.deployment_id for one in world.bindings]
    assert shared[0] == shared[1]
    assert shared[2] != shared[0]


def test_what_failed_or_drains_is_not_shared(world: World) -> None:
    """A deployment on its way off is nobody's any more."""
    register(world, "1")
    endpoint(world, "e", "f", "g")
    first = put(world, "e")
    take_off(world, first)
    put(world, "f")
    assert len(world.rows(Deployment)) == 2
    world.checker.says = BadField("no")
    asyncio.run(world.until_state("FAILED"))
    put(world, "g")
    assert len(world.rows(Deployment)) == 3


def test_undeploying_one_leaves_the_deployment_to_the_others(world: World) -> None:
    """No replica ends while another endpoint has them; with the last binding the deployment drains."""
    register(world, "1")
    endpoint(world, "e", "f")
    first, second = put(world, "e", {"0": 100}), put(world, "f", {"0": 100})
    until_done(world, first, second)
    before = world.replicas
    take_off(world, first)
    asyncio.run(world.turns(3))
    assert (world.deployment.state, [one.id for one in world.replicas]) == ("READY", [one.id for one in before])
    assert [one.id for one in world.bindings] == [second.targets["deployed_model"]]
    assert not world.gateway.snapshot.endpoints[0].deployed or not world.gateway.snapshot.endpoints[1].deployed
    take_off(world, second)
    asyncio.run(world.until_state("GONE"))


def test_the_first_goes_before_any_is_ready(world: World) -> None:
    """Its operation is cancelled; the deployment goes on for the one that shares it, until that one's is done."""
    register(world, "1")
    endpoint(world, "e", "f")
    first, second = put(world, "e", {"0": 100}), put(world, "f", {"0": 100})
    asyncio.run(world.until_state("STARTING"))
    take_off(world, first)
    failed = world.operation(first).failure
    assert failed is not None
    assert failed.code == "CANCELLED"
    until_done(world, second)


def test_a_shared_deployment_that_fails_fails_for_all(world: World) -> None:
    """Each operation says why."""
    register(world, "1")
    endpoint(world, "e", "f")
    both = put(world, "e"), put(world, "f")
    world.checker.says = BadField("no")
    asyncio.run(world.until_state("FAILED"))
    assert {world.operation(one).failure.code for one in both} == {"BAD_FIELD"}  # type: ignore[union-attr]


def test_who_joins_late_sets_no_deadline(world: World) -> None:
    """A deployment that loses its replicas just when one joins is not given up, though its deadline is long past."""
    register(world, "1")
    endpoint(world, "e", "f")
    until_done(world, put(world, "e", {"0": 100}))
    world.clock.now += 10_000
    (replica,) = world.replicas
    world.node.kill(replica.id, failure(NoCapacity))
    second = put(world, "f", {"0": 100})
    asyncio.run(world.turns(3))
    until_done(world, second)
    assert "FAILED" not in world.states(world.deployment.id)


def test_one_that_sleeps_is_shared_asleep(world: World) -> None:
    """Whoever joins a deployment that scaled to zero is done once the gateway knows: a request wakes it."""
    register(world, "1")
    endpoint(world, "e", "f")
    until_done(world, put(world, "e", {"0": 100}, scale_to_zero_after_s=5.0))
    world.gateway.idle_s = {world.deployment.id: 6.0}
    asyncio.run(world.until_state("ASLEEP"))
    second = put(world, "f", {"0": 100}, scale_to_zero_after_s=5.0)
    until_done(world, second)
    assert world.deployment.state == "ASLEEP"


def test_a_shared_deployment_counts_once(world: World) -> None:
    """Against the quota, that is."""
    register(world, "1")
    endpoint(world, "e", "f", "g")
    world.write(lambda tx: set_quota(tx, SCOPE.project, 0.25, now=1.0))
    small = MachineSpec(machine_type="WX-S")
    put(world, "e", machine=small)
    put(world, "f", machine=small)
    with pytest.raises(QuotaExceeded):
        put(world, "g", machine=small, own=True)
    assert [one.endpoint_id for one in world.bindings] == ["e", "f"]


def test_a_split_holds_once_the_model_is_ready(world: World) -> None:
    """Until then the others keep their traffic; without a split they keep it for good."""
    register(world, "1", "2", "3")
    endpoint(world, "e")
    until_done(world, put(world, "e", {"0": 100}, deployed_model_id="71"))
    second = put(world, "e", {"0": 20, "71": 80}, version="2", deployed_model_id="72")
    asyncio.run(world.until_state("WARMING"))
    assert splits(world, "e") == {"71": 100, "72": 0}
    until_done(world, second)
    assert splits(world, "e") == {"71": 80, "72": 20}
    until_done(world, put(world, "e", version="3", deployed_model_id="73"))
    assert splits(world, "e") == {"71": 80, "72": 20, "73": 0}


def test_a_model_that_fails_takes_no_traffic(world: World) -> None:
    """The split that came with it is forgotten."""
    register(world, "1", "2")
    endpoint(world, "e")
    until_done(world, put(world, "e", {"0": 100}, deployed_model_id="71"))
    world.checker.says = BadField("no")
    put(world, "e", {"0": 100}, version="2")
    asyncio.run(world.until_state("FAILED"))
    assert splits(world, "e")["71"] == 100


@pytest.mark.parametrize("by", ["PATCH", "deploy", "undeploy"])
def test_the_newest_split_holds(world: World, by: str) -> None:
    """A split that is asked for while another one waits for its model replaces that."""
    register(world, "1", "2", "3")
    endpoint(world, "e")
    until_done(world, put(world, "e", {"0": 100}, deployed_model_id="71"))
    waiting = put(world, "e", {"0": 100}, version="2", deployed_model_id="72")
    if by == "PATCH":
        world.write(lambda tx: split_traffic(tx, SCOPE, "e", {"71": 100}))
    elif by == "deploy":
        world.node.ladder = ()  # the third is not READY before the second
        put(world, "e", {"0": 10, "71": 90}, version="3", deployed_model_id="73")
    else:
        third = put(world, "e", version="3", deployed_model_id="73")
        take_off(world, third, {"71": 100})
    assert world.operation(waiting).split == {}
    assert splits(world, "e")["71"] == 100


def test_what_a_split_names_may_be_gone_by_then(world: World) -> None:
    """The rest keep their proportions."""
    register(world, "1", "2", "3")
    endpoint(world, "e")
    for version, own in (("1", "71"), ("2", "72")):
        until_done(world, put(world, "e", {"0": 100}, version=version, deployed_model_id=own))
    third = put(world, "e", {"0": 20, "71": 40, "72": 40}, version="3", deployed_model_id="73")
    gone = next(one for one in world.rows(Operation) if one.targets.get("deployed_model") == "71")
    take_off(world, gone)
    until_done(world, third)
    asyncio.run(world.until(lambda: "71" not in splits(world, "e")))
    assert splits(world, "e") == {"72": 67, "73": 33}


@settings(deadline=None)
@given(split=st.dictionaries(st.from_regex(r"[0-9]{1,19}", fullmatch=True), st.integers(0, 100), max_size=6))
def test_a_split_is_kept_in_its_operation(split: dict[str, int]) -> None:
    """What an operation is told of the traffic, it tells."""
    operation = Operation(
        scope=SCOPE,
        id="1",
        parent="p",
        kind="deploy_model",
        contract="test",
        targets={"split": as_target(split)},
        created_at=1.0,
        updated_at=1.0,
    )
    assert operation.split == split
    assert operation.takes_traffic is bool(split)


def test_a_rollout_decides_alone(world: World) -> None:
    """While one is open a deploy with a split is refused, and one without is not; and the other way round."""
    register(world, "1", "2", "3")
    endpoint(world, "e")
    until_done(world, put(world, "e", {"0": 100}, deployed_model_id="71"))
    until_done(world, put(world, "e", version="2", deployed_model_id="72"))
    world.write(lambda tx: start_rollout(tx, SCOPE, "e", "72", RolloutPlan(), now=world.clock.now))
    with pytest.raises(RolloutRunning):
        put(world, "e", {"0": 100}, version="3")
    put(world, "e", version="3")


def test_an_endpoint_that_is_deleted_takes_nothing(world: World) -> None:
    """Neither a model nor another name."""
    register(world, "1")
    endpoint(world, "e")
    put(world, "e")
    world.write(lambda tx: delete_endpoint(tx, SCOPE, "e", force=True, contract="test", now=world.clock.now))
    assert world.rows(Endpoint)[0].deleting
    with pytest.raises(EndpointNotFound):
        put(world, "e")


def test_servers_of_others_are_shared_or_nothing(world: World) -> None:
    """A version that is an external server's has no key in its row: it is served where its deployment is."""
    server = ExternalServer(base_url="https://api.example.com/v1", model="big")
    register(world, "1", spec=ServingSpec(runtime="external", external=server))
    endpoint(world, "e")
    with pytest.raises(NotSupported, match="key"):
        put(world, "e")
    world.deploy(
        artifact_uri=server.base_url,
        model_id="x",
        endpoint_id="theirs",
        spec=ServingSpec(runtime="external", external=server),
        external_key="sk",
    )
    put(world, "e", model_id="x")
    assert [one.deployment_id for one in world.bindings] == [world.deployment.id] * 2


def test_a_mutation_is_everybodys(world: World) -> None:
    """A shared deployment runs at another scale for all, by other metrics, and a fit is judged by those."""
    register(world, "1")
    endpoint(world, "e", "f", "g", "h")
    first = put(world, "e")
    put(world, "f")
    busy = Autoscaling(targets=(MetricTarget(Metric.CONCURRENCY, 3),))
    mutate = {"contract": "test", "now": world.clock.now, "least": 2, "most": 3, "autoscaling": busy}
    target = first.targets["deployed_model"]
    operation = world.write(lambda tx: mutate_deployed_model(tx, SCOPE, "e", target, **mutate))
    assert operation.state is OperationState.SUCCEEDED
    assert (world.deployment.min_replicas, world.deployment.max_replicas) == (2, 3)
    assert world.deployment.autoscaling == busy
    put(world, "g", min_replicas=2, max_replicas=3, autoscaling=busy)
    assert len(world.rows(Deployment)) == 1
    put(world, "h")
    assert len(world.rows(Deployment)) == 2
