"""The OpenAPI document: every route is in it, as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from api_world import World
from fastapi import Request, Response

from headrace.api.access import Route
from headrace.api.app import ROUTES
from headrace.api.native.deployments import DeployBody
from headrace.api.native.keys import KeyBody
from headrace.api.openapi import DESCRIPTIONS, LOOSELY_DESCRIBED, document, left_over, undescribed
from headrace.contracts.vertex import deploy
from headrace.resources.access import Permission

HOW = (
    "Describe it in the DESCRIPTIONS of its contract (api/native/descriptions.py, api/vertex/descriptions.py; what the "
    "gateway answers: api/data_plane.py), or for now add it to LOOSELY_DESCRIBED in api/openapi.py"
)


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The document."""
    return msgspec.json.decode(msgspec.json.encode(document(ROUTES)))


def nested(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from nested(each)
    elif isinstance(value, list):
        for each in value:
            yield from nested(each)


def test_every_route_is_described() -> None:
    """A route that is served is described, or named as one that is described loosely."""
    missing = undescribed(ROUTES)
    lines = "\n".join(f'    "{route}",' for route in missing)
    assert not missing, f"{len(missing)} routes have no description. {HOW}:\n{lines}"


def test_nothing_is_described_that_is_not_served() -> None:
    """A description goes with its route, and leaves the list of loose ones when it comes."""
    assert not left_over(ROUTES), "These are described, and no route has them"
    assert not LOOSELY_DESCRIBED & DESCRIPTIONS.keys(), "These are described, and so need not be loose"


def test_a_new_route_without_a_description_is_found() -> None:
    """Whoever adds a route is told its name as the lists want it."""

    async def handler(_request: Request) -> Response:
        return Response()

    new = Route("POST", "/headrace/v1/new/{thing}", Permission.READ, handler)
    assert undescribed([*ROUTES, new]) == ["POST /headrace/v1/new/{thing}"]
    added = document([*ROUTES, new])["paths"]["/headrace/v1/new/{thing}"]["post"]
    assert added["requestBody"]["content"]["application/json"]["schema"] == {"type": "object"}


def test_it_is_public_and_the_same_for_everybody(world: World) -> None:
    """Without a key, and with one, the same bytes; and no secret's field is in them."""
    without = world.call("GET", "/openapi.json", key=None)
    assert without.status_code == 200
    assert without.headers["content-type"] == "application/json"
    assert world.call("GET", "/openapi.json").content == without.content
    for secret in ("nonce", "secret_hash"):
        assert f'"{secret}"' not in without.text
    assert world.error("POST", "/openapi.json", key=None)[0] == 401


def test_its_references_lead_somewhere_and_names_are_unique(described: dict[str, Any]) -> None:
    """Nothing dangles; each operation has a summary, an id of its own, and all of its path's parameters."""
    for each in nested(described):
        if isinstance(reference := each.get("$ref"), str):
            target: Any = described
            for step in reference.removeprefix("#/").split("/"):
                target = target[step]
    operations = [(path, each) for path, methods in described["paths"].items() for each in methods.values()]
    identifiers = [operation["operationId"] for _, operation in operations]
    assert len(set(identifiers)) == len(identifiers) > 80
    for path, operation in operations:
        assert operation["summary"].endswith((".", "…")), path
        assert path.count("{") == len([one for one in operation.get("parameters", ()) if one["in"] == "path"]), path
        assert "Raises" not in operation.get("description", "")


def test_bodies_are_described_by_what_parses_them(described: dict[str, Any]) -> None:
    """The fields of a body in the document are those of its struct, with what their docstring says of them."""
    schemas = described["components"]["schemas"]
    assert set(schemas["KeyBody"]["properties"]) == set(KeyBody.__struct_fields__)
    assert schemas["KeyBody"]["additionalProperties"] is False
    assert set(schemas["DeployBody"]["properties"]) == set(DeployBody.__struct_fields__)
    assert "empty with" in schemas["DeployBody"]["properties"]["artifact_uri"]["description"]
    assert "Attributes:" not in str(schemas)
    path = described["paths"]["/{version}/projects/{project}/locations/{location}:deploy"]
    body = path["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(deploy.DeployBody.__struct_encode_fields__)


def test_rows_are_described_as_they_are_shown(world: World, described: dict[str, Any]) -> None:
    """What an answer has of a row is what the document says of it, no more and no less."""
    world.deploy()
    for collection, kind, more in (
        ("deployments", "Deployment", {"wanted_replicas"}),
        ("operations", "Operation", set()),
    ):
        (shown,) = world.json("GET", f"/headrace/v1/{collection}")[collection]
        assert set(shown) == set(described["components"]["schemas"][kind]["properties"]) | more, kind
    (key, *_) = world.json("GET", "/headrace/v1/keys")["keys"]
    assert set(key) - {"format"} == set(described["components"]["schemas"]["ApiKey"]["properties"])
