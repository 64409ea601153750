"""What users may ask for: rows that appear together or not at all."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import World

from headrace.control.commands import create_key, delete_endpoint, delete_model, limit_key, revoke_key, undeploy
from headrace.control.traffic import share_out
from headrace.resources.access import Role, secret_hash
from headrace.resources.deployments import LONGEST_DEADLINE_S, Deployment, MachineSpec
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import (
    BadField,
    BadName,
    DeploymentNotFound,
    EndpointNotFound,
    HeadraceError,
    KeyNotFound,
    MachineSpecIncomplete,
    ModelNotFound,
    StillInUse,
)
from headrace.resources.limits import MOST_PER_MINUTE, KeyLimits
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.operations import ApiKey, Operation
from headrace.resources.states import OperationState

NOUNS = (Model, ModelVersion, Endpoint, Deployment, DeployedModel, Operation)


def test_deploy_makes_every_row_and_names_them(world: World) -> None:
    """Model, version, endpoint, deployment, deployed model: the operation's targets are what is stored."""
    operation = world.deploy(model_display_name="Llama", labels={"team": "a"}, endpoint_id="chat")
    rows = {kind: world.rows(kind) for kind in NOUNS}
    assert {kind.__name__: len(found) for kind, found in rows.items()} == {kind.__name__: 1 for kind in NOUNS}
    assert operation.targets == {
        "endpoint": "chat",
        "model": rows[Model][0].id,
        "version": "1",
        "deployment": rows[Deployment][0].id,
        "deployed_model": rows[DeployedModel][0].id,
    }
    assert (rows[Model][0].display_name, rows[Model][0].labels) == ("Llama", {"team": "a"})
    assert rows[DeployedModel][0].traffic == 100


def test_the_same_artifacts_twice_are_two_models(world: World) -> None:
    """Vertex AI's way: each deploy registers anew, unless it names the model."""
    world.deploy()
    world.deploy()
    assert len({model.id for model in world.rows(Model)}) == 2


def test_naming_a_model_adds_a_version(world: World) -> None:
    """The next number, and the earlier versions are left as they were."""
    for _ in range(3):
        world.deploy(model_id="llama")
    assert [version.version for version in world.rows(ModelVersion)] == ["1", "2", "3"]
    assert len(world.rows(Model)) == 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"artifact_uri": ""}, BadField),
        ({"min_replicas": 0}, BadField),
        ({"min_replicas": 3, "max_replicas": 2}, BadField),
        ({"timeout_s": 0.0}, BadField),
        ({"timeout_s": LONGEST_DEADLINE_S + 1}, BadField),
        ({"timeout_s": math.nan}, BadField),
        ({"model_id": "Not An Id"}, BadName),
        ({"endpoint_id": "-x"}, BadName),
        ({"machine": MachineSpec(machine_type="g2-standard-4")}, MachineSpecIncomplete),
        ({"machine": MachineSpec(accelerator_type="NVIDIA_L4", accelerator_count=1)}, MachineSpecIncomplete),
    ],
    ids=str,
)
def test_a_refused_deploy_leaves_nothing(world: World, fields: dict[str, object], error: type[HeadraceError]) -> None:
    """All or nothing: not one row of a request that was refused in its middle."""
    with pytest.raises(error):
        world.deploy(**fields)
    assert [world.rows(kind) for kind in NOUNS] == [[]] * len(NOUNS)


def _split(world: World) -> list[int]:
    return [one.traffic for one in world.rows(DeployedModel)]


def test_a_new_model_takes_the_traffic_once_it_is_ready(world: World) -> None:
    """Until then those before it keep theirs; a new one that fails changes nothing."""
    world.deploy(endpoint_id="chat")
    asyncio.run(world.until_state("READY"))
    world.deploy(endpoint_id="chat")
    assert _split(world) == [100, 0]
    asyncio.run(world.until_state("WARMING"))
    assert _split(world) == [100, 0]
    asyncio.run(world.until_state("READY"))
    assert _split(world) == [0, 100]
    world.checker.says = BadField("no")
    world.deploy(endpoint_id="chat")
    asyncio.run(world.until_state("FAILED"))
    assert _split(world) == [0, 100, 0]


def _undeploy(world: World, place: int, traffic: dict[str, int] | None = None) -> Operation:
    one = world.rows(DeployedModel)[place]
    operation = world.write(
        lambda tx: undeploy(
            tx, DEFAULT_SCOPE, one.endpoint_id, one.id, contract="test", now=world.clock.now, traffic=traffic
        )
    )
    assert isinstance(operation, Operation)
    return operation


def test_undeploy_hands_its_traffic_on(world: World) -> None:
    """The others take over its share, and never one that is leaving too."""
    for _ in range(3):
        world.deploy(endpoint_id="chat")
    assert _split(world) == [100, 0, 0]
    _undeploy(world, 0)
    assert _split(world) == [0, 100, 0]
    _undeploy(world, 1)
    assert _split(world) == [0, 0, 100]
    _undeploy(world, 2)
    assert _split(world) == [0, 0, 0]


def test_undeploy_takes_a_split_of_the_callers(world: World) -> None:
    """A split that adds up and names what is there is followed; any other is refused and changes nothing."""
    for _ in range(3):
        world.deploy(endpoint_id="chat")
    ids = [one.id for one in world.rows(DeployedModel)]
    for wrong in ({ids[1]: 50}, {"9": 100}, {ids[1]: 110, ids[2]: -10}):
        with pytest.raises(BadField):
            _undeploy(world, 0, wrong)
    assert _split(world) == [100, 0, 0]
    _undeploy(world, 0, {ids[1]: 70, ids[2]: 30})
    assert _split(world) == [0, 70, 30]


def test_undeploy_of_what_is_not_there(world: World) -> None:
    """Endpoint and deployed model must exist, and belong together."""
    world.deploy(endpoint_id="a")
    world.deploy(endpoint_id="b")
    on_a, on_b = world.rows(DeployedModel)
    with pytest.raises(EndpointNotFound):
        world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, "c", on_a.id, contract="test", now=1.0))
    with pytest.raises(DeploymentNotFound):
        world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, "a", on_b.id, contract="test", now=1.0))


def test_undeploy_before_ready_cancels_the_deploy(world: World) -> None:
    """The deploy's operation fails as CANCELLED at once; the undeploy's succeeds when nothing is left."""
    deploying = world.deploy()
    asyncio.run(world.until_state("STARTING"))
    removing = _undeploy(world, 0)
    failed = world.operation(deploying)
    assert failed.failure is not None
    assert failed.failure.code == "CANCELLED"
    assert world.operation(removing).state is OperationState.RUNNING
    asyncio.run(world.until_state("GONE"))
    assert world.operation(removing).state is OperationState.SUCCEEDED
    assert (world.rows(DeployedModel), world.replicas) == ([], [])


def test_undeploy_twice_is_one_undeploy(world: World) -> None:
    """Whoever asks again gets an operation that ends together with the first."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    first, second = _undeploy(world, 0), _undeploy(world, 0)
    asyncio.run(world.until_state("GONE"))
    assert {world.operation(first).state, world.operation(second).state} == {OperationState.SUCCEEDED}


def test_a_failed_deployment_can_be_undeployed(world: World) -> None:
    """It leaves its binding for people to see why, and goes when asked to."""
    world.checker.says = BadField("no")
    world.deploy()
    asyncio.run(world.until_state("FAILED"))
    removing = _undeploy(world, 0)
    asyncio.run(world.until_state("GONE"))
    assert world.operation(removing).state is OperationState.SUCCEEDED
    assert world.states(world.deployment.id)[-3:] == ["FAILED", "DRAINING", "GONE"]


def _delete_endpoint(world: World, endpoint_id: str, *, force: bool = False) -> Operation:
    operation = world.write(
        lambda tx: delete_endpoint(tx, DEFAULT_SCOPE, endpoint_id, force=force, contract="test", now=world.clock.now)
    )
    assert isinstance(operation, Operation)
    return operation


def test_an_endpoint_in_use_is_deleted_only_with_force(world: World) -> None:
    """Without force it is refused; with it, everything on it goes first, and then the endpoint."""
    world.deploy(endpoint_id="chat")
    asyncio.run(world.until_state("READY"))
    with pytest.raises(StillInUse):
        _delete_endpoint(world, "chat")
    operation = _delete_endpoint(world, "chat", force=True)
    with pytest.raises(EndpointNotFound):
        world.deploy(endpoint_id="chat")
    asyncio.run(world.turn())
    assert world.gateway.snapshot.endpoints == ()
    asyncio.run(world.until(lambda: not world.rows(Endpoint)))
    assert world.operation(operation).state is OperationState.SUCCEEDED


def test_an_empty_endpoint_goes_at_once(world: World) -> None:
    """There is nothing to wait for: the operation comes back done."""
    world.deploy(endpoint_id="chat")
    _undeploy(world, 0)
    asyncio.run(world.until_state("GONE"))
    assert _delete_endpoint(world, "chat").state is OperationState.SUCCEEDED
    assert world.rows(Endpoint) == []
    with pytest.raises(EndpointNotFound):
        _delete_endpoint(world, "chat")


def test_a_model_in_use_is_not_deleted(world: World) -> None:
    """Not before nothing of it runs; then with all its versions, at once. What it did stays on record."""
    world.deploy(model_id="llama")

    def delete() -> Operation:
        done = world.write(lambda tx: delete_model(tx, DEFAULT_SCOPE, "llama", contract="test", now=1.0))
        assert isinstance(done, Operation)
        return done

    with pytest.raises(StillInUse):
        delete()
    _undeploy(world, 0)
    asyncio.run(world.until_state("GONE"))
    assert delete().state is OperationState.SUCCEEDED
    assert (world.rows(Model), world.rows(ModelVersion)) == ([], [])
    assert world.deployment.state == "GONE"
    with pytest.raises(ModelNotFound):
        delete()


def test_a_key_is_shown_once_and_stored_as_a_hash(world: World) -> None:
    """Nothing in the database gives the secret away; each key has its own."""
    make = [
        world.write(lambda tx: create_key(tx, name="ci", project="p", role=Role.DEPLOYER, now=1.0)) for _ in range(2)
    ]
    (key, secret), (_, other) = make
    assert secret != other
    assert len(secret) >= 43
    assert (key.secret_hash, key.hint) == (secret_hash(secret), secret[:7])
    assert secret not in str(world.rows(ApiKey))


@pytest.mark.parametrize(("name", "project"), [("", "p"), (" ", "*"), ("x", "Not A Project"), ("x", "")])
def test_a_key_needs_a_name_and_a_project(world: World, name: str, project: str) -> None:
    """A key that nobody could tell apart, or that reaches nothing, is refused."""
    with pytest.raises((BadField, BadName)):
        world.write(lambda tx: create_key(tx, name=name, project=project, role=Role.ADMIN, now=1.0))


def test_revoking_keeps_the_first_time(world: World) -> None:
    """A revoked key stays revoked since when it first was; an unknown one is told."""
    key, _ = world.write(lambda tx: create_key(tx, name="ci", project="*", role=Role.VIEWER, now=1.0))
    assert world.write(lambda tx: revoke_key(tx, key.id, now=5.0)).revoked_at == 5.0
    assert world.write(lambda tx: revoke_key(tx, key.id, now=6.0)).revoked_at == 5.0
    with pytest.raises(KeyNotFound):
        world.write(lambda tx: revoke_key(tx, "0", now=1.0))


def test_a_keys_limits_are_changed(world: World) -> None:
    """One that is good gets others, or none; one that was revoked, or what is no limit, changes nothing."""
    limits = KeyLimits(requests_per_minute=5)
    key, _ = world.write(lambda tx: create_key(tx, name="ci", project="p", role=Role.PREDICTOR, now=1.0, limits=limits))
    assert key.limits == limits
    changed = world.write(lambda tx: limit_key(tx, key.id, KeyLimits(tokens_per_minute=100)))
    assert (changed.requests_per_minute, changed.tokens_per_minute) == (None, 100)
    assert world.write(lambda tx: limit_key(tx, key.id, changed.limits)) == changed
    for limit in (0, -1, MOST_PER_MINUTE + 1):
        with pytest.raises(BadField):
            world.write(lambda tx, limit=limit: limit_key(tx, key.id, KeyLimits(tokens_per_minute=limit)))
    world.write(lambda tx: revoke_key(tx, key.id, now=5.0))
    with pytest.raises(KeyNotFound):
        world.write(lambda tx: limit_key(tx, key.id, limits))


@given(shares=st.dictionaries(st.text(max_size=3), st.integers(0, 100), min_size=1, max_size=8))
def test_shares_add_up_and_keep_their_proportions(shares: dict[str, int]) -> None:
    """Whole percents, 100 together, each within one of its exact share."""
    split = share_out(shares)
    assert sum(split.values()) == 100
    assert split.keys() == shares.keys()
    total = sum(shares.values())
    if total:
        assert all(abs(split[key] - 100 * share / total) < 1 for key, share in shares.items())
        assert all(split[key] == 0 for key, share in shares.items() if share == 0)
