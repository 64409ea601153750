"""An endpoint's access list holds through every contract that can change it, not only through the one that set it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from api_world import World

from headrace.api.app import ROUTES
from headrace.contracts.databricks.endpoints import serving_id
from headrace.resources.access import Permission, Role
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_PROJECT, Scope
from headrace.resources.operations import Operation
from headrace.resources.rollouts import Rollout

SCOPE = Scope(DEFAULT_PROJECT, DEFAULT_LOCATION)
NATIVE, VERTEX = "/headrace/v1", f"/v1beta1/{SCOPE}"


class Listed:
    """A world whose endpoint ``e1`` has an access list on which nobody is, with two models and a rollout."""

    def __init__(self, world: World) -> None:
        self.world = world
        (weights := world.layout.data_dir / "weights").mkdir()
        self.onto = {"artifact_uri": f"file://{weights}", "endpoint_id": "e1"}
        world.advance(world.deploy(scope=SCOPE, endpointConfig={"endpointUserId": "e1"}))
        self.canary = world.json("POST", f"{NATIVE}/deployments", json=self.onto | {"no_traffic": True})
        with world.store.transaction() as tx:
            (endpoint,) = tx.list(Endpoint)
            self.first, self.second = tx.list(DeployedModel)
            (self.first_pool, _) = tx.list(Deployment)
        self.list_path = f"/api/2.0/permissions/serving-endpoints/{serving_id(endpoint)}"
        world.json("PUT", self.list_path, json={"access_control_list": []})

    def rows(self) -> bytes:
        """All that a change could have changed."""
        with self.world.store.transaction() as tx:
            kinds = (Endpoint, Deployment, DeployedModel, Operation, Rollout)
            return msgspec.json.encode([tx.list(kind) for kind in kinds])

    def requests(self) -> Iterator[tuple[str, str, Any]]:
        """One of every way to change the endpoint, what is deployed on it, or where its traffic goes."""
        endpoint, model = f"{VERTEX}/endpoints/e1", {"id": self.first.id}
        container = {"customModel": {"gcsUri": "file:///w/s"}}
        yield "POST", f"{VERTEX}:deploy", container | {"endpointConfig": {"endpointUserId": "e1"}}
        yield "PATCH", f"{endpoint}?updateMask=displayName", {"displayName": "mine"}
        yield "POST", f"{endpoint}:update", {"endpoint": {"clientConnectionConfig": {"inferenceTimeout": "9s"}}}
        yield (
            "POST",
            f"{endpoint}:deployModel",
            {"deployedModel": {"model": f"{SCOPE}/models/{self.first_pool.model_id}"}},
        )
        resources = {"dedicatedResources": {"minReplicaCount": 2, "maxReplicaCount": 2}}
        mask = "dedicatedResources.minReplicaCount"
        yield "POST", f"{endpoint}:mutateDeployedModel", {"deployedModel": model | resources, "updateMask": mask}
        yield "POST", f"{endpoint}:undeployModel", {"deployedModelId": self.second.id}
        yield "DELETE", f"{endpoint}?force=true", None
        yield "POST", f"/v1beta1/{SCOPE}/operations/{self.canary['id']}:cancel", {}
        yield "PATCH", f"{NATIVE}/endpoints/e1", {"traffic": {self.second.id: 100}}
        yield "POST", f"{NATIVE}/deployments", self.onto
        yield "PATCH", f"{NATIVE}/deployments/{self.first_pool.id}", {"min_replicas": 2}
        yield "DELETE", f"{NATIVE}/deployments/{self.first_pool.id}", None
        yield "POST", f"{NATIVE}/rollouts", {"endpoint_id": "e1", "deployed_model_id": self.second.id}


@pytest.fixture
def listed(world: World) -> Listed:
    """With its list."""
    return Listed(world)


def test_who_is_not_on_the_list_changes_nothing_through_any_contract(listed: Listed) -> None:
    """A deployer of the project who is not on it is refused by name, by every way there is, and no row is another."""
    stranger, before = listed.world.key(DEFAULT_PROJECT, Role.DEPLOYER), listed.rows()
    for method, path, body in listed.requests():
        told = listed.world.call(method, path, key=stranger, **({} if body is None else {"json": body}))
        assert told.status_code == 403, (method, path, told.text)
        assert "NOT_ON_ACCESS_LIST" in told.text, (method, path)
        assert listed.rows() == before, (method, path)


def test_who_is_on_it_and_admins_may(listed: Listed) -> None:
    """CAN_MANAGE at the endpoint is enough for a deployer; an admin needs no list."""
    world = listed.world
    anna = world.key(DEFAULT_PROJECT, Role.DEPLOYER)
    name = next(one["name"] for one in world.json("GET", f"{NATIVE}/keys")["keys"] if one["hint"] in anna[:12])
    entry = {"user_name": name, "permission_level": "CAN_MANAGE"}
    world.json("PUT", listed.list_path, json={"access_control_list": [entry]})
    for key in (anna, world.admin):
        world.json("PATCH", f"{VERTEX}/endpoints/e1?updateMask=displayName", json={"displayName": "ours"}, key=key)
        world.json("PATCH", f"{NATIVE}/endpoints/e1", json={"traffic": {listed.first.id: 100}}, key=key)


def test_every_way_to_change_an_endpoint_is_among_them(listed: Listed) -> None:
    """Of all routes for deployers, those that name an endpoint or a deployment in their path are tried above."""
    tried = [(method, path.partition("?")[0]) for method, path, _ in listed.requests()]
    for route in ROUTES:
        noun, _, verb = route.path.rpartition("}")
        if route.permission is Permission.DEPLOY and noun.endswith(("{endpoint:id", "{endpoint", "{deployment")):
            place = "deployments/" if noun.endswith("{deployment") else "endpoints/"
            assert any(
                method == route.method and place in path and path.endswith(verb or ("e1", listed.first_pool.id))
                for method, path in tried
            ), f"{route.method} {route.path}"
