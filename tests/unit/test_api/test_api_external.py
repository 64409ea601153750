"""External servers through the native API: who may name which, and what never comes back."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World

from headrace.resources.access import Role
from headrace.resources.deployments import Replica
from headrace.resources.models import ModelVersion

KEY = "sk-external-0123456789"
DEPLOYMENTS = "/headrace/v1/deployments"


def body(**external: Any) -> dict[str, Any]:
    """A deployment of an external server."""
    server = {"base_url": "https://api.example.com:443/v1/", "model": "big/model", "key": KEY}
    return {"project": "my-proj", "external": server | external}


def test_the_key_is_kept_and_never_shown(world: World) -> None:
    """The replica's row has it; no answer of the native API or of Vertex AI's does."""
    operation = world.json("POST", DEPLOYMENTS, json=body())
    with world.store.transaction(read_only=True) as tx:
        (replica,) = tx.list(Replica)
        (version,) = tx.list(ModelVersion)
    assert (replica.nonce, replica.node_id) == (KEY, "")
    assert (version.artifact_uri, version.spec.runtime) == ("https://api.example.com/v1", "external")
    deployment = f"{DEPLOYMENTS}/{operation['targets']['deployment']}"
    scope = "projects/my-proj/locations/us-central1"
    paths = [deployment, DEPLOYMENTS, "/headrace/v1/status", "/headrace/v1/models", "/headrace/v1/operations"]
    paths += [f"/v1/{scope}/endpoints", f"/v1/{scope}/models", f"/v1/{operation['name']}"]
    answers = [world.call("GET", path) for path in paths]
    assert [answer.status_code for answer in answers] == [200] * len(paths)
    assert KEY not in "".join(answer.text for answer in answers)
    assert world.json("GET", deployment)["external"] == {
        "base_url": "https://api.example.com/v1",
        "model": "big/model",
    }
    assert world.error("GET", f"/headrace/v1/replicas/{replica.id}/logs") == (501, "NOT_SUPPORTED")


@pytest.mark.parametrize(
    ("project", "role", "anywhere"),
    [("*", Role.ADMIN, True), ("my-proj", Role.ADMIN, False), ("my-proj", Role.DEPLOYER, False)],
)
def test_private_networks_are_for_who_administers_all(world: World, project: str, role: Role, anywhere: bool) -> None:
    """Who may deploy may name a public server; a private one takes an administrator of every project."""
    world.json("POST", DEPLOYMENTS, key=world.key(project, role), json=body())
    with world.store.transaction(read_only=True) as tx:
        (version,) = tx.list(ModelVersion)
    assert version.spec.external is not None
    assert version.spec.external.anywhere is anywhere


def test_who_may_not_deploy_names_no_server(world: World) -> None:
    """An external server is a deployment: a predictor makes none, nor does a deployer elsewhere."""
    for key in (world.key("my-proj", Role.PREDICTOR), world.key("other", Role.DEPLOYER)):
        assert world.error("POST", DEPLOYMENTS, key=key, json=body()) == (403, "ROLE_MISSING")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (body(base_url="http://169.254.169.254/latest"), (403, "EXTERNAL_ADDRESS_FORBIDDEN")),
        (body(base_url="https://user:pw@h/v1"), (400, "BAD_FIELD")),
        (body(key="two words"), (400, "BAD_FIELD")),
        (body(model=""), (400, "BAD_FIELD")),
        (body(anywhere=True), (400, "BAD_FIELD")),
        (body() | {"artifact_uri": "/weights"}, (400, "BAD_FIELD")),
        (body() | {"runtime": "transformers"}, (400, "BAD_FIELD")),
        (body() | {"min_replicas": 2, "max_replicas": 2}, (400, "BAD_FIELD")),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, wrong: dict[str, Any], expected: tuple[int, str]) -> None:
    """Addresses of no server, secrets in URLs, keys that cannot be sent, artifacts besides it: nothing is made."""
    assert world.error("POST", DEPLOYMENTS, json=wrong) == expected
    with world.store.transaction(read_only=True) as tx:
        assert tx.list(Replica) == []
