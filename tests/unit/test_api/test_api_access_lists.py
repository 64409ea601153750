"""An endpoint's access list holds through every contract that can change or show it, not only the one that set it."""

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
from headrace.resources.profiles import Carried, Cost
from headrace.resources.rollouts import Rollout

COST = Cost(prompt=1e-3, prompt_squared=0.0, step=0.02, sequence=1e-3, context=0.0)
POINTS = [
    {
        "prompt_tokens": prompt,
        "output_tokens": output,
        "concurrency": at,
        "requests": 1.0,
        "first_s": 0.1,
        "gap_s": 0.05,
    }
    | {"wall_s": COST.work_s(prompt, output, at)}
    for prompt in (32, 256, 768)
    for output in (16, 64)
    for at in (1, 4)
]
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
        yield "DELETE", f"/v1beta1/{SCOPE}/operations/{self.canary['id']}", None
        yield "POST", f"/v1beta1/{SCOPE}/operations/{self.canary['id']}:cancel", {}
        yield "PATCH", f"{NATIVE}/endpoints/e1", {"traffic": {self.second.id: 100}}
        yield "POST", f"{NATIVE}/deployments", self.onto
        yield "PATCH", f"{NATIVE}/deployments/{self.first_pool.id}", {"min_replicas": 2}
        yield "DELETE", f"{NATIVE}/deployments/{self.first_pool.id}", None
        yield "POST", f"{NATIVE}/rollouts", {"endpoint_id": "e1", "deployed_model_id": self.second.id}
        yield "POST", f"{NATIVE}/profiles", {"deployment": self.first_pool.id, "points": []}

    def shared(self) -> tuple[Endpoint, DeployedModel]:
        """Another endpoint, without a list, whose deployed model had the first one's deployment before."""
        self.world.json("PUT", self.list_path, json={})
        self.world.json("POST", f"{VERTEX}/endpoints?endpointId=e2", json={"displayName": "mine"})
        model = {"model": f"{SCOPE}/models/{self.first_pool.model_id}"}
        resources = {"dedicatedResources": {"minReplicaCount": 1, "maxReplicaCount": 1}}
        self.world.json("POST", f"{VERTEX}/endpoints/e2:deployModel", json={"deployedModel": model | resources})
        self.world.json("PUT", self.list_path, json={"access_control_list": []})
        with self.world.store.transaction(read_only=True) as tx:
            endpoint = tx.get(Endpoint, scope=SCOPE, id="e2")
            (bound,) = tx.list(DeployedModel, endpoint_id="e2")
        assert endpoint is not None
        assert bound.deployment_id == self.first_pool.id
        return endpoint, bound


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


def test_what_is_shared_is_not_changed_through_an_endpoint_without_a_list(listed: Listed) -> None:
    """Whoever shares the deployment of an endpoint whose list leaves them out may leave it, and not scale it."""
    _, bound = listed.shared()
    stranger, before = listed.world.key(DEFAULT_PROJECT, Role.DEPLOYER), listed.rows()
    wish = {"id": bound.id, "dedicatedResources": {"minReplicaCount": 2, "maxReplicaCount": 2}}
    masks = ("dedicatedResources.minReplicaCount", "dedicatedResources.maxReplicaCount")
    body = {"deployedModel": wish, "updateMask": ",".join(masks)}
    path = f"{VERTEX}/endpoints/e2:mutateDeployedModel"
    assert listed.world.error("POST", path, json=body, key=stranger) == (403, "NOT_ON_ACCESS_LIST")
    assert listed.rows() == before
    listed.world.json("POST", path, json=body)
    off = {"deployedModelId": bound.id}
    listed.world.json("POST", f"{VERTEX}/endpoints/e2:undeployModel", json=off, key=stranger)


def test_a_profile_decides_on_no_guarantee_of_an_endpoint_whose_list_leaves_its_maker_out(listed: Listed) -> None:
    """Points of one's own replica are refused where another endpoint's throughput was sold by them; so is a loss."""
    world = listed.world
    mine = world.json("POST", f"{NATIVE}/deployments", json=listed.onto | {"endpoint_id": "e3"})
    own = mine["targets"]["deployment"]
    with world.store.transaction() as tx:
        theirs, alike = (tx.get(Deployment, scope=SCOPE, id=name) for name in (listed.first_pool.id, own))
        assert theirs is not None
        assert alike is not None
        version = {"model_id": theirs.model_id, "model_version": theirs.model_version}
        known = {"runtime": "openvino", "max_model_len": 4096}
        tx.update(msgspec.structs.replace(alike, **version, **known))
        theirs = tx.update(msgspec.structs.replace(theirs, **known))
    body = {"deployment": own, "points": POINTS}
    stranger = world.key(DEFAULT_PROJECT, Role.DEPLOYER)
    made = world.json("POST", f"{NATIVE}/profiles", json=body, key=stranger)
    with world.store.transaction() as tx:
        tx.update(msgspec.structs.replace(theirs, carried=Carried(cost=COST, concurrency=1, first_s=2.0, gap_s=0.2)))
    before = listed.rows()
    assert world.error("POST", f"{NATIVE}/profiles", json=body, key=stranger) == (403, "NOT_ON_ACCESS_LIST")
    gone = f"{NATIVE}/profiles/{made['id']}"
    assert world.error("DELETE", gone, key=stranger) == (403, "NOT_ON_ACCESS_LIST")
    assert listed.rows() == before
    world.json("DELETE", gone)


def test_who_is_not_on_the_list_is_shown_nothing_through_any_contract(listed: Listed) -> None:
    """No list has the endpoint or what is on it, and whoever names it is refused; its operations and rollouts too."""
    world = listed.world
    world.advance(listed.canary)
    begun = world.json("POST", f"{NATIVE}/rollouts", json={"endpoint_id": "e1", "deployed_model_id": listed.second.id})
    stranger, pool = world.key(DEFAULT_PROJECT, Role.DEPLOYER), listed.first_pool.id
    named = [
        f"{VERTEX}/endpoints/e1",
        f"{VERTEX}/operations/{listed.canary['id']}",
        f"{NATIVE}/deployments/{pool}",
        f"{NATIVE}/operations/{listed.canary['id']}",
        f"{NATIVE}/rollouts/{begun['id']}",
    ]
    for path in named:
        assert world.error("GET", path, key=stranger) == (403, "NOT_ON_ACCESS_LIST"), path
        world.json("GET", path)
    wait = f"{VERTEX}/operations/{listed.canary['id']}:wait"
    assert world.error("POST", wait, json={}, key=stranger) == (403, "NOT_ON_ACCESS_LIST")
    lists = ["deployments", "endpoints", "operations", "rollouts", "status"]
    model = f"{VERTEX}/models/{listed.first_pool.model_id}"
    models = [f"{VERTEX}/models", model, f"{model}:listVersions"]
    for path in [f"{VERTEX}/endpoints", f"{VERTEX}/operations", *(f"{NATIVE}/{name}" for name in lists), *models]:
        told = world.call("GET", path, key=stranger).text
        assert not [one for one in ('"e1"', "/e1", pool) if one in told], path
        assert pool in world.call("GET", path).text or "e1" in world.call("GET", path).text, path


def test_what_shares_a_deployment_is_not_named(listed: Listed) -> None:
    """An endpoint that shares the deployment tells its readers of the others only as far as they may see those."""
    listed.shared()
    stranger = listed.world.key(DEFAULT_PROJECT, Role.DEPLOYER)
    for path in (f"{VERTEX}/endpoints/e2", f"{VERTEX}/endpoints"):
        assert "endpoints/e1" not in listed.world.call("GET", path, key=stranger).text
        assert "endpoints/e1" in listed.world.call("GET", path).text


def test_operations_behind_hidden_ones_are_listed(listed: Listed) -> None:
    """As many as were asked for, where newer ones are about an endpoint that is not for whoever asks."""
    world, stranger = listed.world, listed.world.key(DEFAULT_PROJECT, Role.DEPLOYER)
    mine = [
        world.json("POST", f"{NATIVE}/deployments", json=listed.onto | {"endpoint_id": f"m{number}"})["id"]
        for number in range(3)
    ]
    for _ in range(4):
        world.json("POST", f"{NATIVE}/deployments", json=listed.onto | {"no_traffic": True})
    for limit in (1, 2, 3):
        told = world.json("GET", f"{NATIVE}/operations?limit={limit}", key=stranger)["operations"]
        assert [one["id"] for one in told] == mine[::-1][:limit]
    assert len(world.json("GET", f"{NATIVE}/operations?limit=3")["operations"]) == 3


def test_who_is_on_the_list_sees_it_and_what_is_shared_is_seen_by_either(listed: Listed) -> None:
    """CAN_VIEW is enough to see; a deployment that an endpoint without a list shares is shown to all of the project."""
    world, pool = listed.world, listed.first_pool.id
    viewer, stranger = world.key(DEFAULT_PROJECT, Role.VIEWER), world.key(DEFAULT_PROJECT, Role.PREDICTOR)
    name = next(one["id"] for one in world.json("GET", f"{NATIVE}/keys")["keys"] if viewer.startswith(one["hint"]))
    entry = {"user_name": name, "permission_level": "CAN_VIEW"}
    world.json("PUT", listed.list_path, json={"access_control_list": [entry]})
    for path in (f"{VERTEX}/endpoints/e1", f"{NATIVE}/deployments/{pool}"):
        world.json("GET", path, key=viewer)
        assert world.error("GET", path, key=stranger) == (403, "NOT_ON_ACCESS_LIST")
    (seen,) = world.json("GET", f"{NATIVE}/status", key=viewer)["endpoints"]
    assert seen["id"] == "e1"
    listed.shared()
    world.json("GET", f"{NATIVE}/deployments/{pool}", key=stranger)
    assert [one["id"] for one in world.json("GET", f"{NATIVE}/status", key=stranger)["endpoints"]] == ["e2"]


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
