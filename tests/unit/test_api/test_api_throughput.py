"""A throughput by the native API, and on Vertex AI's deployed models: asked for, shown, changed, refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from api_world import SCOPE, World

from headrace.resources.profiles import Carried, Cost

CARRIED = Carried(
    cost=Cost(prompt=1024 / 410 / 768, prompt_squared=0.0, step=0.0, sequence=0.0, context=0.0),
    concurrency=8,
    first_s=1.0,
    gap_s=0.1,
    measured=True,
)
ENDPOINT = "/headrace/v1/endpoints/chat"
WHERE = {"project": "my-proj"}


@pytest.fixture(autouse=True)
def _carries() -> Iterator[None]:
    with patch("headrace.control.commands.provision.carried_by", lambda *_, **__: CARRIED):
        yield


def deploy(world: World, throughput: str) -> Any:
    """Ask for a deployment that is sold so; its operation."""
    body = {"artifact_uri": "/", "project": "my-proj", "endpoint_id": "chat", "throughput": throughput}
    return world.json("POST", "/headrace/v1/deployments", json=body)


def sold(world: World) -> dict[str, Any]:
    """The one deployed model."""
    (endpoint,) = world.json("GET", "/headrace/v1/endpoints")["endpoints"]
    (deployed,) = endpoint["deployed_models"]
    assert isinstance(deployed, dict)
    return deployed


def test_what_is_sold_is_shown(world: World) -> None:
    """In tokens a second, though it was asked for in chunks; the deployment says what a replica carries."""
    operation = deploy(world, "1x:6x")
    assert sold(world)["provision"] == {
        "min_tokens_per_s": 100,
        "max_tokens_per_s": 600,
        "chunk": 100,
        "model_units": 0,
    }
    name = operation["targets"]["deployment"]
    found = world.json("GET", f"/headrace/v1/deployments/{name}")
    assert (found["min_replicas"], found["max_replicas"], found["carried"]["concurrency"]) == (1, 2, 8)
    assert "It is ACCEPTED." in found["pending"]
    assert "It has until" in found["pending"], "nothing was tried yet"
    (listed,) = world.json("GET", "/headrace/v1/status")["endpoints"]
    assert listed["deployed_models"][0]["deployment"]["pending"] == found["pending"]


def test_it_is_changed_and_the_operation_told(world: World) -> None:
    """More waits for replicas and says so with an operation; less is so at once."""
    deploy(world, "200:400")
    name = sold(world)["id"]
    answer = world.json("PATCH", ENDPOINT, params=WHERE, json={"throughput": {name: "8x"}})
    (operation,) = answer["operations"]
    assert (operation["state"], operation["kind"]) == ("RUNNING", "mutate_deployed_model")
    assert sold(world)["provision"]["min_tokens_per_s"] == 200
    answer = world.json("PATCH", ENDPOINT, params=WHERE, json={"throughput": {name: "100:100"}})
    assert answer["operations"][0]["state"] == "SUCCEEDED"
    assert sold(world)["provision"]["max_tokens_per_s"] == 100


@pytest.mark.parametrize("text", ["2", "lots", "1x:2", "2x:1x", "0:0", "-1:2", "150:200", "1e3", " 100"])
def test_what_is_no_throughput_is_a_bad_field(world: World, text: str) -> None:
    """Whether a deploy asks for it or a change."""
    body = {"artifact_uri": "/", "project": "my-proj", "endpoint_id": "chat", "throughput": text}
    assert world.error("POST", "/headrace/v1/deployments", json=body) == (400, "BAD_FIELD")
    deploy(world, "100:100")
    change = {"throughput": {sold(world)["id"]: text}}
    assert world.error("PATCH", ENDPOINT, params=WHERE, json=change) == (400, "BAD_FIELD")


def test_a_stranger_has_none_to_change(world: World) -> None:
    """A deployed model that the endpoint does not have."""
    deploy(world, "100:100")
    change = {"throughput": {"12345": "100:100"}}
    assert world.error("PATCH", ENDPOINT, params=WHERE, json=change) == (404, "DEPLOYMENT_NOT_FOUND")


def test_a_system_label_of_vertex_asks_for_it(world: World) -> None:
    """Two endpoints with other throughputs of one version share its deployment, and each shows its own."""
    operation = world.deploy(modelConfig={"modelUserId": "m"}, endpointConfig={"endpointUserId": "seed"})
    assert operation["name"]
    for name, throughput in (("a", "1x:2x"), ("b", "300:300")):
        world.json("POST", f"/v1/{SCOPE}/endpoints?endpointId={name}", json={"displayName": name})
        labels = {"headrace-throughput": throughput}
        body = {"deployedModel": {"model": f"{SCOPE}/models/m@1", "systemLabels": labels}}
        world.json("POST", f"/v1/{SCOPE}/endpoints/{name}:deployModel", json=body)
    shown = [world.json("GET", f"/v1/{SCOPE}/endpoints/{name}")["deployedModels"][0]["headrace"] for name in "ab"]
    assert shown[0]["throughput"] == {"minTokensPerS": 100, "maxTokensPerS": 200, "chunk": 100}
    assert shown[1]["throughput"] == {"minTokensPerS": 300, "maxTokensPerS": 300, "chunk": 100}
    assert shown[0]["deployment"] == shown[1]["deployment"]
