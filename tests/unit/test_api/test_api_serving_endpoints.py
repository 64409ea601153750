"""Databricks' serving endpoints by their routes: what is answered, and how mistakes are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from api_world import World

from headrace.control import commands
from headrace.control.garden import Located
from headrace.control.system_ai import register_published
from headrace.hardware import look
from headrace.resources.access import Role
from headrace.resources.endpoints import DeployedModel
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_SCOPE, Scope
from headrace.resources.nodes import Node
from headrace.resources.unity_catalog import read_full_name
from small_models import write_llama

SERVING = "/api/2.0/serving-endpoints"
MODEL = "ml.llm.fm"
SYSTEM_MODEL = "system.ai.smollm2_135m_instruct"


@pytest.fixture
def registered(world: World) -> World:
    """A world in whose default project there is a model."""
    with world.store.transaction() as tx:
        order = commands.UploadRequest(
            scope=DEFAULT_SCOPE, contract="t", artifact_uri="file:///a", display_name=MODEL, model_id="fm"
        )
        commands.upload(tx, order, now=1.0)
    return world


@pytest.fixture
def readable(registered: World) -> World:
    """One whose model has weights, and whose node told what machine it is."""
    folder = write_llama(registered.layout.data_dir / "llama")
    with registered.store.transaction() as tx:
        (version,) = tx.list(ModelVersion)
        tx.update(msgspec.structs.replace(version, artifact_uri=folder.as_uri()))
        hardware = msgspec.to_builtins(look(folder)) | {"gpus": []}
        tx.insert(Node(id="local", boot_id="b", memory_bytes=1 << 32, cores=2, hardware=hardware, last_seen_at=1.0))
    return registered


def config(**fields: Any) -> dict[str, Any]:
    """Of the model's only version."""
    return {"served_entities": [{"entity_name": MODEL, "entity_version": 1} | fields]}


def refused(world: World, method: str, path: str, **options: Any) -> tuple[int, str, str]:
    """Status, code and message of a request that must fail in Databricks' shape."""
    answer = world.call(method, path, **options)
    body = answer.json()
    assert set(body) == {"error_code", "message", "details"}, answer.text
    return answer.status_code, body["error_code"], body["message"]


@pytest.mark.parametrize("path", [SERVING, f"{SERVING}/", f"{SERVING}/pt"])
def test_made_listed_got_and_deleted(registered: World, path: str) -> None:
    """By either create, with a slash at the end or without; the name is its id."""
    made = registered.json("POST", path, json={"name": "pt1", "config": config(), "tags": [{"key": "a", "value": "b"}]})
    assert made["state"] == {"ready": "NOT_READY", "config_update": "IN_PROGRESS"}
    assert (made["name"], made["task"], made["permission_level"]) == ("pt1", "llm/v1/chat", "CAN_MANAGE")
    assert made["pending_config"]["served_entities"][0]["entity_version"] == "1"
    for collection in (SERVING, f"{SERVING}/"):
        [listed] = registered.json("GET", collection)["endpoints"]
        assert (listed["name"], listed["id"], listed["tags"]) == ("pt1", made["id"], [{"key": "a", "value": "b"}])
    assert registered.json("GET", f"{SERVING}/pt1") == made
    assert registered.json("GET", "/headrace/v1/endpoints")["endpoints"][0]["id"] == "pt1"
    assert registered.json("DELETE", f"{SERVING}/pt1") == {}
    assert refused(registered, "GET", f"{SERVING}/pt1")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_update_during_an_update(registered: World, wrapped: bool) -> None:
    """Both shapes are read, and refused with what runs."""
    registered.json("POST", SERVING, json={"name": "pt1", "config": config()})
    path, body = (f"{SERVING}/pt/pt1/config", {"config": config()}) if wrapped else (f"{SERVING}/pt1/config", config())
    status, code, message = refused(registered, "PUT", path, json=body)
    assert (status, code) == (409, "RESOURCE_CONFLICT")
    assert "fm-1 (ml.llm.fm 1)" in message


def test_mistakes_leave_nothing(registered: World) -> None:
    """Each is told in words that its client has an exception for, and no endpoint is there after it."""
    for body, told in (
        ({"name": "pt1"}, (400, "INVALID_PARAMETER_VALUE")),
        ({"name": "no name", "config": config()}, (400, "INVALID_PARAMETER_VALUE")),
        ({"name": "pt1", "config": config(entity_version="9")}, (404, "RESOURCE_DOES_NOT_EXIST")),
        ({"name": "pt1", "config": config(entity_name="none")}, (404, "RESOURCE_DOES_NOT_EXIST")),
        ({"name": "pt1", "config": config(max_provisioned_throughput=10)}, (400, "INVALID_PARAMETER_VALUE")),
        ({"name": "pt1", "config": config(), "tags": [{"key": ""}]}, (400, "INVALID_PARAMETER_VALUE")),
        ({"name": "pt1", "config": config(external_model={"name": "x"})}, (501, "NOT_IMPLEMENTED")),
    ):
        assert refused(registered, "POST", SERVING, json=body)[:2] == told, body
    assert refused(registered, "POST", SERVING, content=b"{")[:2] == (400, "MALFORMED_REQUEST")
    assert registered.json("GET", SERVING)["endpoints"] == []


def test_a_name_is_taken_once(registered: World) -> None:
    """And the other endpoint stays as it is."""
    registered.json("POST", SERVING, json={"name": "pt1", "config": config()})
    before = registered.json("GET", f"{SERVING}/pt1")
    assert refused(registered, "POST", SERVING, json={"name": "pt1", "config": config()})[:2] == (
        400,
        "RESOURCE_ALREADY_EXISTS",
    )
    assert registered.json("GET", f"{SERVING}/pt1") == before


def test_a_throughput_that_cannot_be_sold_names_what_can(readable: World) -> None:
    """The nearest whole chunks; a least above the most; a most of nothing. A least of nothing is sold."""
    registered = readable
    info = registered.json("GET", f"{SERVING}/get-model-optimization-info/{MODEL}/1")
    assert info["model_type"] == "llama"
    chunk = info["throughput_chunk_size"]
    assert info["optimizable"] is True
    assert info["headrace"]["tokens_per_s_of_a_replica"] >= 4 * chunk > 0
    for least, most, told in (
        (chunk, 2 * chunk + 1, f"{2 * chunk:,} or {3 * chunk:,}"),
        (2 * chunk, chunk, f"{chunk:,}"),
        (0, 0, f"{chunk:,}"),
    ):
        wish = config(min_provisioned_throughput=least, max_provisioned_throughput=most)
        status, code, message = refused(registered, "POST", SERVING, json={"name": "pt1", "config": wish})
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
        assert told in message
    for name, wish, expected in (
        ("zero", {"min_provisioned_throughput": 0, "max_provisioned_throughput": 2 * chunk}, (0, 2 * chunk)),
        ("units", {"provisioned_model_units": 100}, (2 * chunk, 2 * chunk)),
        ("burst", {"provisioned_model_units": 100, "burst_scaling_enabled": True}, (2 * chunk, 4 * chunk)),
    ):
        made = registered.json("POST", SERVING, json={"name": name, "config": config(**wish)})
        assert made["endpoint_type"] == "FOUNDATION_MODEL_API"
        [endpoint] = [one for one in registered.json("GET", SERVING)["endpoints"] if one["name"] == name]
        assert wish.items() <= endpoint["config"]["served_entities"][0].items()
        with registered.store.transaction() as tx:
            (sold,) = [one.provision for one in tx.list(DeployedModel, endpoint_id=name)]
        assert sold is not None
        assert (sold.min_tokens_per_s, sold.max_tokens_per_s) == expected


def test_what_is_not_optimizable_says_why(registered: World) -> None:
    """Weights that cannot be read: no throughput of them can be stated, and the reason is in the answer."""
    info = registered.json("GET", f"{SERVING}/get-model-optimization-info/{MODEL}/1")
    assert info["optimizable"] is False
    assert info["headrace"]["code"] == "NOT_OPTIMIZABLE"
    for name, version in ((MODEL, "9"), (SYSTEM_MODEL, "2"), ("system.ai.nothing", "1")):
        path = f"{SERVING}/get-model-optimization-info/{name}/{version}"
        assert refused(registered, "GET", path)[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


def test_who_looks_at_a_model_of_the_garden_stores_nothing(world: World) -> None:
    """Nor is what is stored pointed elsewhere: a viewer reads alone."""
    viewer, path = world.key("default", Role.VIEWER), f"{SERVING}/get-model-optimization-info/{SYSTEM_MODEL}/1"
    assert "optimizable" in world.json("GET", path, key=viewer)
    with world.store.transaction() as tx:
        assert tx.list(Model) == tx.list(ModelVersion) == []
        located = Located("/elsewhere", "SmolLM2", "publishers/x/models/y@z")
        register_published(tx, DEFAULT_SCOPE, read_full_name(SYSTEM_MODEL), located, now=1.0)
        before = (tx.list(Model), tx.list(ModelVersion))
    assert "optimizable" in world.json("GET", path, key=viewer)
    with world.store.transaction() as tx:
        assert (tx.list(Model), tx.list(ModelVersion)) == before


def test_a_workspace_is_the_keys_project(registered: World) -> None:
    """A key of another project sees neither the endpoint nor the model; a viewer may look and not touch."""
    registered.json("POST", SERVING, json={"name": "pt1", "config": config()})
    stranger = registered.key("elsewhere", Role.DEPLOYER)
    assert registered.json("GET", SERVING, key=stranger) == {"endpoints": []}
    assert refused(registered, "GET", f"{SERVING}/pt1", key=stranger)[0] == 404
    body = {"name": "pt1", "config": config()}
    assert refused(registered, "POST", SERVING, key=stranger, json=body)[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    viewer = registered.key(DEFAULT_SCOPE.project, Role.VIEWER)
    assert registered.json("GET", f"{SERVING}/pt1", key=viewer)["permission_level"] == "CAN_VIEW"
    assert refused(registered, "DELETE", f"{SERVING}/pt1", key=viewer)[:2] == (403, "PERMISSION_DENIED")


def test_endpoints_of_other_clients_are_there_too(world: World) -> None:
    """One that Vertex AI's client made is told of in Databricks' words, and deleted by them."""
    scope = Scope(DEFAULT_SCOPE.project, DEFAULT_LOCATION)
    operation = world.deploy(scope=scope, endpointConfig={"endpointUserId": "e1", "endpointDisplayName": "shown"})
    world.advance(operation)
    told = world.json("GET", f"{SERVING}/e1")
    assert told["state"] == {"ready": "READY", "config_update": "NOT_UPDATING"}
    [entity] = told["config"]["served_entities"]
    assert entity["state"]["deployment"] == "DEPLOYMENT_READY"
    assert msgspec.json.encode(told) == msgspec.json.encode(world.json("GET", f"{SERVING}/shown"))
    assert world.json("DELETE", f"{SERVING}/shown") == {}
