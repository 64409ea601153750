"""Serving endpoints from one config to the next: what serves meanwhile, and what is left of an update that failed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from provisioned import CHUNK, carried
from scripted import GIB, UP, World

from headrace.contracts.databricks.endpoints import endpoint_json
from headrace.contracts.databricks.served import Config, ServedEntity, config_of
from headrace.control import Checked, commands
from headrace.control.commands.unity_catalog import find_registered
from headrace.control.entities import find_entity
from headrace.control.garden import Located
from headrace.control.serving import (
    ServingRequest,
    create_serving_endpoint,
    delete_serving_endpoint,
    find_serving_endpoint,
    update_serving_config,
    view_of,
)
from headrace.control.system_ai import register_published
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import (
    EndpointNotFound,
    Failure,
    ModelNotFound,
    NameTaken,
    NotOptimizable,
    ThroughputTooHigh,
    UpdateRunning,
)
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.profiles import Carried
from headrace.resources.unity_catalog import read_full_name
from headrace.store import Transaction

MODEL = "ml.llm.fm"
DIED = Failure(code="ENGINE_FAILED", message="It cannot load this.", fix="Mend it.")


@pytest.fixture
def registered(world: World) -> World:
    """A world with two versions of a model, called as Unity Catalog calls it."""

    def upload(tx: Transaction) -> None:
        first = commands.UploadRequest(
            scope=DEFAULT_SCOPE, contract="t", artifact_uri="file:///a", display_name=MODEL, model_id="fm"
        )
        commands.upload(tx, first, now=1.0)
        second = commands.UploadRequest(
            scope=DEFAULT_SCOPE,
            contract="t",
            artifact_uri="file:///b",
            display_name="",
            model_id="fm",
            new_version=True,
        )
        commands.upload(tx, second, now=2.0)

    world.write(upload)
    return world


def config(*versions: str, routes: dict[str, int] | None = None, **more: Any) -> Config:
    """Of these versions, called ``v1`` and so on."""
    entities = [ServedEntity(name=f"v{one}", entity_name=MODEL, entity_version=one, **more) for one in versions]
    return config_of(entities, routes)


def create(world: World, wanted: Config, name: str = "pt1") -> None:
    """Ask for an endpoint."""
    order = ServingRequest(scope=DEFAULT_SCOPE, name=name, creator="me", config=wanted, tags=({"key": "a"},))
    world.write(lambda tx: create_serving_endpoint(tx, order, now=world.clock.now, data_dir=world.data_dir))


def update(world: World, wanted: Config, name: str = "pt1") -> None:
    """Ask for another config."""
    world.write(
        lambda tx: update_serving_config(tx, DEFAULT_SCOPE, name, wanted, now=world.clock.now, data_dir=world.data_dir)
    )


def told(world: World, name: str = "pt1") -> dict[str, Any]:
    """What its clients are told."""

    def read(tx: Transaction) -> dict[str, Any]:
        return endpoint_json(view_of(tx, find_serving_endpoint(tx, DEFAULT_SCOPE, name)), permission="CAN_MANAGE")

    return world.write(read)  # type: ignore[no-any-return]


def settled(world: World) -> bool:
    """Whether no update is under way."""
    return bool(told(world)["state"]["config_update"] != "IN_PROGRESS")


def weigh(world: World, monkeypatch: pytest.MonkeyPatch, memory_bytes: int) -> World:
    """Replicas of so much memory on a node of 10 GiB.

    What one carries is told to whoever says where weights are staged, and to nobody else.
    """
    one = carried()

    def carries(*_: object, data_dir: Path | None = None, **__: object) -> Carried:
        if data_dir is None:
            raise NotOptimizable("No copy is here, and no store is asked while rows are held.")
        return one

    for module in ("commands.provision", "serving.scale"):
        monkeypatch.setattr(f"headrace.control.{module}.carried_by", carries)
    assert isinstance(world.checker.says, Checked)
    world.checker.says = msgspec.structs.replace(world.checker.says, memory_bytes=memory_bytes)
    return world


@pytest.fixture
def light(registered: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Replicas of one GiB: several have room, and each carries four chunks."""
    return weigh(registered, monkeypatch, GIB)


@pytest.fixture
def small(registered: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Replicas of 4 GiB: two have room, and each carries four chunks."""
    return weigh(registered, monkeypatch, 4 * GIB)


def sold(world: World) -> list[tuple[str, int, int]]:
    """Deployed models with a throughput, and how much."""
    rows = [(row.id, row.provision) for row in world.rows(DeployedModel)]
    return [(name, sale.min_tokens_per_s, sale.max_tokens_per_s) for name, sale in rows if sale is not None]


def traffic(world: World) -> dict[str, int]:
    """Shares by the version that has them, as gateways know them."""
    [endpoint] = world.gateway.snapshot.endpoints
    return {one.model_version: one.traffic for one in endpoint.deployed if one.traffic}


def test_created_and_ready(registered: World) -> None:
    """It is IN_PROGRESS until what it serves answers, and tells of each entity how far that is."""

    async def main() -> None:
        create(registered, config("1"))
        begun = told(registered)
        assert begun["state"] == {"ready": "NOT_READY", "config_update": "IN_PROGRESS"}
        [entity] = begun["pending_config"]["served_entities"]
        assert entity["state"]["deployment"] == "DEPLOYMENT_CREATING"
        assert "ACCEPTED" in entity["state"]["deployment_state_message"]
        await registered.until(lambda: settled(registered))
        done = told(registered)
        assert done["state"] == {"ready": "READY", "config_update": "NOT_UPDATING"}
        [entity] = done["config"]["served_entities"]
        assert (entity["entity_name"], entity["entity_version"], entity["name"]) == (MODEL, "1", "v1")
        assert entity["state"] == {"deployment": "DEPLOYMENT_READY", "deployment_state_message": ""}
        assert (done["config"]["config_version"], done["tags"], done["creator"]) == (1, [{"key": "a"}], "me")
        assert "pending_config" not in done
        assert (len(done["id"]), done["id"]) == (32, begun["id"])

    asyncio.run(main())


@pytest.mark.parametrize("control_dies", [False, True])
def test_the_old_config_serves_until_the_new_one_does(registered: World, control_dies: bool) -> None:
    """No snapshot ever routes to nothing that answers, whether or not control lives through the update."""

    async def main() -> None:
        world = registered
        create(world, config("1"))
        await world.until(lambda: settled(world))
        update(world, config("2"))
        assert told(world)["state"] == {"ready": "READY", "config_update": "IN_PROGRESS"}
        [old], [new] = (told(world)[key]["served_entities"] for key in ("config", "pending_config"))
        assert (old["name"], new["name"]) == ("v1", "v2")
        pushed = len(world.gateway.pushed)
        await world.turns(3)
        assert not settled(world)
        if control_dies:
            world.restart_control()
        await world.until(lambda: settled(world))
        await world.until(lambda: len(world.rows(DeployedModel)) == 1)
        for snapshot in world.gateway.pushed[pushed:]:
            [endpoint] = snapshot.endpoints
            assert sum(one.traffic for one in endpoint.deployed if one.answers) == 100
        assert traffic(world) == {"2": 100}
        assert told(world)["config"]["config_version"] == 2

    asyncio.run(main())


def test_an_update_that_fails_leaves_what_served(registered: World) -> None:
    """UPDATE_FAILED with the reason at the entities that could not be; what was deployed for them goes."""

    async def main() -> None:
        world = registered
        create(world, config("1"))
        await world.until(lambda: settled(world))
        world.node.ladder = (DIED,)
        update(world, config("2"))
        await world.until(lambda: settled(world), at_most=200)
        failed = told(world)
        assert failed["state"] == {"ready": "READY", "config_update": "UPDATE_FAILED"}
        [entity] = failed["pending_config"]["served_entities"]
        assert entity["state"]["deployment"] == "DEPLOYMENT_FAILED"
        assert "ENGINE_FAILED: It cannot load this." in entity["state"]["deployment_state_message"]
        assert [one["name"] for one in failed["config"]["served_entities"]] == ["v1"]
        await world.until(lambda: len(world.rows(DeployedModel)) == 1)
        assert traffic(world) == {"1": 100}
        world.node.ladder = UP
        update(world, config("2"))
        await world.until(lambda: settled(world))
        assert told(world)["state"] == {"ready": "READY", "config_update": "NOT_UPDATING"}
        assert "pending_config" not in told(world)

    asyncio.run(main())


def test_a_create_that_fails_is_there_to_be_mended(registered: World) -> None:
    """It says why, answers nobody, and is served by the next config that can be."""

    async def main() -> None:
        world = registered
        world.node.ladder = (DIED,)
        create(world, config("1"))
        await world.until(lambda: settled(world), at_most=200)
        assert told(world)["state"] == {"ready": "NOT_READY", "config_update": "UPDATE_FAILED"}
        [entity] = told(world)["config"]["served_entities"]
        assert entity["state"]["deployment"] == "DEPLOYMENT_FAILED"
        world.node.ladder = UP
        update(world, config("1"))
        await world.until(lambda: settled(world))
        assert told(world)["state"] == {"ready": "READY", "config_update": "NOT_UPDATING"}
        assert [one["name"] for one in told(world)["config"]["served_entities"]] == ["v1"]

    asyncio.run(main())


def test_an_update_during_an_update_is_told_what_runs(registered: World) -> None:
    """It is refused, with the entities on the way, and leaves them alone."""
    create(registered, config("1"))
    with pytest.raises(UpdateRunning) as refused:
        update(registered, config("2"))
    assert f"v1 ({MODEL} 1)" in refused.value.evidence
    assert len(registered.rows(DeployedModel)) == 1


def test_another_scale_restarts_nothing(registered: World) -> None:
    """An entity that stays is changed in place: the same deployed model, the same replica."""

    async def main() -> None:
        world = registered
        create(world, config("1", workload_size="Small"))
        await world.until(lambda: settled(world))
        [before] = world.rows(DeployedModel)
        update(world, config("1", workload_size="Medium", scale_to_zero_enabled=True))
        await world.until(lambda: settled(world))
        [after] = world.rows(DeployedModel)
        [deployment] = world.rows(Deployment)
        assert after.id == before.id
        assert (deployment.min_replicas, deployment.max_replicas, deployment.scale_to_zero_after_s) == (2, 4, 1800.0)

    asyncio.run(main())


def test_traffic_between_two_entities(registered: World) -> None:
    """The routes are the traffic as soon as both answer; one of them can go again."""

    async def main() -> None:
        world = registered
        create(world, config("1"))
        await world.until(lambda: settled(world))
        update(world, config("1", "2", routes={"v1": 80, "v2": 20}))
        await world.until(lambda: settled(world))
        await world.turn()
        assert traffic(world) == {"1": 80, "2": 20}
        assert {one["name"]: one["state"]["deployment"] for one in told(world)["config"]["served_entities"]} == {
            "v1": "DEPLOYMENT_READY",
            "v2": "DEPLOYMENT_READY",
        }
        update(world, config("2"))
        await world.until(lambda: settled(world) and len(world.rows(DeployedModel)) == 1)
        await world.turn()
        assert traffic(world) == {"2": 100}

    asyncio.run(main())


def test_what_cannot_be_created_leaves_nothing(registered: World) -> None:
    """A name that is taken, an entity or a version that is not there, a throughput of what none is known."""
    create(registered, config("1"))
    for wanted, name, error in (
        (config("1"), "pt1", NameTaken),
        (config("9"), "pt2", ModelNotFound),
        (config_of([ServedEntity(entity_name="ml.llm.none")], None), "pt2", ModelNotFound),
        (config("1", max_provisioned_throughput=980), "pt2", NotOptimizable),
        (config("1", provisioned_model_units=50), "pt2", NotOptimizable),
    ):
        with pytest.raises(error):
            create(registered, wanted, name)
    assert [one.id for one in registered.rows(Endpoint)] == ["pt1"]
    assert len(registered.rows(Deployment)) == 1


def test_a_full_name_means_in_a_config_what_it_means_in_the_registry(registered: World) -> None:
    """Of several models that bear it the oldest, in any case of letters; of a plain name's models the newest."""

    def upload(tx: Transaction, model_id: str, name: str, now: float) -> None:
        order = commands.UploadRequest(
            scope=DEFAULT_SCOPE, contract="t", artifact_uri="file:///a", display_name=name, model_id=model_id
        )
        commands.upload(tx, order, now=now)

    for model_id, name in (("afm", MODEL), ("plain-1", "chat"), ("a-plain-2", "chat")):
        registered.write(lambda tx, model_id=model_id, name=name: upload(tx, model_id, name, registered.clock.now))
        registered.clock.now += 1.0
    meant = {MODEL: "fm", MODEL.upper(): "fm", "afm": "afm", "chat": "a-plain-2"}
    for name, model_id in meant.items():
        model, _ = registered.write(lambda tx, name=name: find_entity(tx, DEFAULT_SCOPE, name, "1"))
        assert model.id == model_id
    full_name = read_full_name(MODEL)
    assert registered.write(lambda tx: find_registered(tx, DEFAULT_SCOPE, full_name)).id == "fm"


def test_a_name_of_the_garden_that_is_written_otherwise_is_served(registered: World) -> None:
    """It is found by what it is registered as."""
    name = "system.ai.meta_llama_v3_1_8b_instruct"
    located = Located("/weights", "Llama", "publishers/x/models/y@z")
    stored, _ = registered.write(
        lambda tx: register_published(tx, DEFAULT_SCOPE, read_full_name(name), located, now=1.0)
    )
    assert registered.write(lambda tx: find_entity(tx, DEFAULT_SCOPE, name, "1"))[0].id == stored.id


def test_a_name_that_is_no_id(registered: World) -> None:
    """Is its display name; and the name of an endpoint that is being deleted is free at once."""

    async def main() -> None:
        world = registered
        create(world, config("1"), "My_Endpoint")
        assert told(world, "My_Endpoint")["name"] == "My_Endpoint"
        create(world, config("1"))
        await world.until(lambda: settled(world))
        world.gateway.outstanding = dict.fromkeys(world.gateway.replicas, 1)
        world.write(lambda tx: delete_serving_endpoint(tx, DEFAULT_SCOPE, "pt1", now=world.clock.now))
        with pytest.raises(EndpointNotFound):
            told(world)
        create(world, config("2"))
        assert told(world)["pending_config"]["served_entities"][0]["name"] == "v2"

    asyncio.run(main())


def test_more_throughput_of_what_runs(light: World) -> None:
    """The same deployed model has it once replicas carry it; an update that fails leaves the old throughput."""

    async def main() -> None:
        world = light
        create(world, config("1", min_provisioned_throughput=CHUNK, max_provisioned_throughput=CHUNK))
        await world.until(lambda: settled(world))
        [(name, *before)] = sold(world)
        assert before == [CHUNK, CHUNK]
        update(world, config("1", provisioned_model_units=8 * 50))
        await world.until(lambda: settled(world))
        assert sold(world) == [(name, 8 * CHUNK, 8 * CHUNK)]
        [deployment] = world.rows(Deployment)
        assert deployment.min_replicas == 2
        with pytest.raises(ThroughputTooHigh):
            update(world, config("1", max_provisioned_throughput=4000 * CHUNK))
        both = config("1", "2", routes={"v1": 50, "v2": 50}, provisioned_model_units=50)
        world.node.ladder = (DIED,)
        update(world, both)
        await world.until(lambda: settled(world), at_most=200)
        assert told(world)["state"] == {"ready": "READY", "config_update": "UPDATE_FAILED"}
        await world.until(lambda: sold(world) == [(name, 8 * CHUNK, 8 * CHUNK)])

    asyncio.run(main())


def test_less_throughput_of_what_runs(light: World) -> None:
    """Less is sold once the new config holds, and fewer replicas are kept for it."""

    async def main() -> None:
        world = light
        create(world, config("1", min_provisioned_throughput=8 * CHUNK, max_provisioned_throughput=8 * CHUNK))
        await world.until(lambda: settled(world))
        [(name, *before)] = sold(world)
        assert before == [8 * CHUNK, 8 * CHUNK]
        update(world, config("1", min_provisioned_throughput=CHUNK, max_provisioned_throughput=CHUNK))
        await world.until(lambda: settled(world))
        assert sold(world) == [(name, CHUNK, CHUNK)]
        [deployment] = world.rows(Deployment)
        assert deployment.min_replicas == 1

    asyncio.run(main())


def test_the_old_config_holds_until_what_is_sold_is_carried(small: World) -> None:
    """One of two replicas is not the throughput that was bought: nothing switches to it, and it is told what lacks."""

    async def main() -> None:
        create(small, config("1"))
        await small.until(lambda: settled(small))
        update(small, config("2", min_provisioned_throughput=8 * CHUNK, max_provisioned_throughput=8 * CHUNK))
        await small.turns(30)
        assert told(small)["state"] == {"ready": "READY", "config_update": "IN_PROGRESS"}
        [entity] = told(small)["pending_config"]["served_entities"]
        assert entity["state"]["deployment_state_message"].startswith("1 of 2 replicas serve.")
        assert traffic(small) == {"1": 100}
        small.clock.now += 3600.0  # as long as it is tried
        await small.until(lambda: settled(small))
        failed = told(small)
        assert failed["state"] == {"ready": "READY", "config_update": "UPDATE_FAILED"}
        [entity] = failed["pending_config"]["served_entities"]
        assert "NO_CAPACITY: 1 of 2 replicas serve." in entity["state"]["deployment_state_message"]
        assert traffic(small) == {"1": 100}
        await small.until(lambda: len(small.rows(DeployedModel)) == 1)

    asyncio.run(main())
