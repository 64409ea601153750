"""The model registry, as Vertex AI's clients and the command line use it."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import SCOPE, World

from headrace.contracts.vertex.listing import Facts, listing
from headrace.resources.access import Role
from headrace.resources.models import Model, ModelVersion

L = f"/v1/{SCOPE}"
PACKAGE = "type.googleapis.com/google.cloud.aiplatform"
CONTAINER = {
    "imageUri": "vllm/vllm-openai:v0.11.0",
    "args": ["--model=gs://bkt/river", "--max-model-len=512"],
    "env": [{"name": "A", "value": "b"}],
    "ports": [{"containerPort": 8080}],
    "grpcPorts": [{"containerPort": 9000}],
    "deploymentTimeout": "600s",
    "sharedMemorySizeMb": "4096",
    "startupProbe": {"exec": {"command": ["cat", "/x"]}, "periodSeconds": 5},
    "healthProbe": {"httpGet": {"path": "/h", "port": 80, "httpHeaders": [{"name": "a", "value": "b"}]}},
    "livenessProbe": {"tcpSocket": {"port": 80, "host": "h"}},
}


def upload(world: World, model: dict[str, Any] | None = None, *, version: str = "v1", **body: Any) -> Any:
    """Register a version; the operation's JSON."""
    model = {"displayName": "river", "artifactUri": "gs://bkt/river"} | (model or {})
    return world.json("POST", f"/{version}/{SCOPE}/models:upload", json={"model": model, **body})


def aliases(world: World, model: str = "m") -> dict[str, list[str]]:
    """The aliases of each version."""
    versions = world.json("GET", f"{L}/models/{model}:listVersions?orderBy=create_time")["models"]
    return {one["versionId"]: one["versionAliases"] for one in versions}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_an_upload_is_done_at_once(world: World, version: str) -> None:
    """Its operation names the model and the version, in fields that the vendor's messages have."""
    operation = upload(world, version=version, modelId="m")
    assert operation == world.json("GET", f"/ui/{operation['name']}")
    assert operation["name"].startswith(f"{SCOPE}/models/m/operations/")
    assert operation["metadata"].keys() == {"@type", "genericMetadata"}
    assert operation["metadata"]["@type"] == f"{PACKAGE}.{version}.UploadModelOperationMetadata"
    assert operation["done"] is True
    assert operation["response"] == {
        "@type": f"{PACKAGE}.{version}.UploadModelResponse",
        "model": f"{SCOPE}/models/m",
        "modelVersionId": "1",
    }


def test_a_container_comes_back_as_it_was_sent(world: World) -> None:
    """Whole, whichever way the model is read; what its arguments ask of our runtimes is in its specification."""
    name = upload(world, {"containerSpec": CONTAINER, "artifactUri": ""}, modelId="m")["response"]["model"]
    model = world.json("GET", f"/v1/{name}@1")
    assert model["containerSpec"] == CONTAINER
    assert model["artifactUri"] == "gs://bkt/river"
    assert model["headrace"]["servingSpec"] == {"maxModelLen": 512}
    assert world.json("GET", f"{L}/models")["models"][0]["containerSpec"] == CONTAINER
    unknown = {"imageUri": "example.com/mine:1", "args": ["--x"]}
    upload(world, {"containerSpec": unknown, "artifactUri": ""}, parentModel=name)
    assert world.json("GET", f"/v1/{name}@2")["containerSpec"] == unknown


def test_versions_are_counted_up_and_never_again(world: World) -> None:
    """A number that was deleted does not come back as another version."""
    for _ in range(3):
        upload(world, **({"parentModel": "m"} if world.json("GET", f"{L}/models")["models"] else {"modelId": "m"}))
    deleted = world.json("DELETE", f"{L}/models/m@3:deleteVersion")
    assert deleted["metadata"]["@type"] == f"{PACKAGE}.v1.DeleteOperationMetadata"
    assert deleted["response"] == {"@type": "type.googleapis.com/google.protobuf.Empty"}
    assert upload(world, parentModel=f"{SCOPE}/models/m")["response"]["modelVersionId"] == "4"
    assert list(aliases(world)) == ["1", "2", "4"]
    world.deploy(modelConfig={"modelUserId": "m"})
    assert list(aliases(world)) == ["1", "2", "4", "5"]


def test_aliases(world: World) -> None:
    """The first version is the default one; aliases move, by an upload too, and some are taken off."""
    upload(world, {"versionAliases": ["one"]}, modelId="m")
    assert aliases(world) == {"1": ["default", "one"]}
    upload(world, {"versionAliases": ["default", "prod"]}, parentModel="m")
    assert aliases(world) == {"1": ["one"], "2": ["default", "prod"]}
    merged = world.json("POST", f"{L}/models/m@1:mergeVersionAliases", json={"versionAliases": ["prod", "-one"]})
    assert (merged["versionId"], merged["versionAliases"]) == ("1", ["prod"])
    assert aliases(world) == {"1": ["prod"], "2": ["default"]}
    world.json("POST", f"{L}/models/m@prod:mergeVersionAliases", json={"versionAliases": ["default"]})
    assert world.json("GET", f"{L}/models/m")["versionId"] == "1"


def test_updates(world: World) -> None:
    """Model and version are changed apart; labels of both are seen together; a lost update is noticed."""
    upload(world, {"labels": {"k": "model"}, "description": "It flows."}, modelId="m")
    upload(world, {"labels": {"v": "two"}, "displayName": "else"}, parentModel="m")
    before = world.json("GET", f"{L}/models/m@2")
    assert (before["displayName"], before["description"], before["labels"]) == (
        "river",
        "It flows.",
        {"k": "model", "v": "two"},
    )
    changed = world.json(
        "PATCH", f"{L}/models/m?updateMask=displayName,description", json={**before, "displayName": "s"}
    )
    assert (changed["displayName"], changed["description"]) == ("s", "It flows.")
    world.json(
        "PATCH",
        f"{L}/models/m@2?updateMask=version_description,labels",
        json={**before, "versionDescription": "second", "labels": {"k": "version"}},
    )
    two, one = world.json("GET", f"{L}/models/m@2"), world.json("GET", f"{L}/models/m@1")
    assert (two["versionDescription"], two["labels"]) == ("second", {"k": "version"})
    assert (one["versionDescription"], one["labels"]) == ("", {"k": "model"})
    stale = {**before, "displayName": "t"}
    assert world.error("PATCH", f"{L}/models/m?updateMask=displayName", json=stale) == (409, "STALE_WRITE")
    del stale["etag"]
    assert world.json("PATCH", f"{L}/models/m@-?updateMask=displayName", json=stale)["displayName"] == "t"


def test_what_is_used_is_not_deleted(world: World) -> None:
    """A version that is deployed, the default one and the last one stay; the refusal says where it is deployed."""
    operation = world.deploy(modelConfig={"modelUserId": "m"}, endpointConfig={"endpointUserId": "e"})
    upload(world, {"versionAliases": ["default"]}, parentModel="m")
    response = world.call("DELETE", f"{L}/models/m@1:deleteVersion")
    error = response.json()["error"]
    assert (response.status_code, error["status"]) == (400, "FAILED_PRECONDITION")
    assert f"{SCOPE}/endpoints/e as deployed model" in error["details"][0]["metadata"]["evidence"]
    assert world.error("DELETE", f"{L}/models/m") == (400, "STILL_IN_USE")
    assert world.error("DELETE", f"{L}/models/m@default:deleteVersion") == (400, "STILL_IN_USE")
    world.json("POST", f"/v1/{operation['name']}:cancel")
    world.advance(operation, "GONE")
    world.json("DELETE", f"{L}/models/m@1:deleteVersion")
    assert world.error("DELETE", f"{L}/models/m@2:deleteVersion") == (400, "STILL_IN_USE")
    world.json("DELETE", f"{L}/models/m")
    assert world.error("GET", f"{L}/models/m") == (404, "MODEL_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "models:upload", {"model": {}}, 400, "BAD_FIELD"),
        ("POST", "models:upload", {"model": {"displayName": "x"}}, 400, "BAD_FIELD"),
        ("POST", "models:upload", {"model": {"displayName": "x" * 129, "artifactUri": "/w"}}, 400, "BAD_FIELD"),
        ("POST", "models:upload", {"model": {"displayName": "x", "artifactUri": "/w\0"}}, 400, "BAD_FIELD"),
        (
            "POST",
            "models:upload",
            {"model": {"displayName": "x", "artifactUri": "/w", "description": "\0"}},
            400,
            "BAD_FIELD",
        ),
        (
            "POST",
            "models:upload",
            {"model": {"displayName": "x", "artifactUri": "/w", "versionAliases": ["1"]}},
            400,
            "BAD_FIELD",
        ),
        (
            "POST",
            "models:upload",
            {"model": {"displayName": "x", "artifactUri": "/w"}, "modelId": "m"},
            409,
            "NAME_TAKEN",
        ),
        (
            "POST",
            "models:upload",
            {"model": {"displayName": "x", "artifactUri": "/w"}, "parentModel": "nobody"},
            404,
            "MODEL_NOT_FOUND",
        ),
        ("PATCH", "models/nobody?updateMask=labels", {}, 404, "MODEL_NOT_FOUND"),
        ("PATCH", "models/m@7?updateMask=labels", {}, 404, "MODEL_NOT_FOUND"),
        ("PATCH", "models/m?updateMask=displayName", {}, 400, "BAD_FIELD"),
        ("PATCH", "models/m?updateMask=artifactUri", {"artifactUri": "/else"}, 400, "BAD_FIELD"),
        ("PATCH", "models/m", {"displayName": "x"}, 400, "BAD_FIELD"),
        ("POST", "models/m:mergeVersionAliases", {"versionAliases": ["prod"]}, 400, "BAD_FIELD"),
        ("POST", "models/m@1:mergeVersionAliases", {}, 400, "BAD_FIELD"),
        ("POST", "models/m@1:mergeVersionAliases", {"versionAliases": ["-default"]}, 400, "STILL_IN_USE"),
        ("POST", "models/m@7:mergeVersionAliases", {"versionAliases": ["prod"]}, 404, "MODEL_NOT_FOUND"),
        ("DELETE", "models/m:deleteVersion", None, 400, "BAD_FIELD"),
        ("DELETE", "models/m@7:deleteVersion", None, 404, "MODEL_NOT_FOUND"),
        ("DELETE", "models/m@1", None, 400, "BAD_FIELD"),
        ("GET", "models?filter=labels", None, 400, "BAD_FIELD"),
        ("GET", "models?orderBy=model", None, 400, "BAD_FIELD"),
        ("GET", "operations?orderBy=display_name", None, 400, "BAD_FIELD"),
    ],
)
def test_bad_input(world: World, method: str, path: str, body: Any, status: int, code: str) -> None:
    """Every bad request has its own code and changes nothing."""
    upload(world, modelId="m")
    before = world.json("GET", f"{L}/models")
    options = {} if body is None else {"json": body}
    assert world.error(method, f"{L}/{path}", **options) == (status, code)
    assert world.json("GET", f"{L}/models") == before


def test_reading_is_not_changing(world: World) -> None:
    """A viewer's key sees the registry and changes nothing of it."""
    upload(world, modelId="m")
    viewer = world.key("my-proj", Role.VIEWER)
    assert world.json("GET", f"{L}/models/m:listVersions", key=viewer)["models"][0]["name"] == f"{SCOPE}/models/m@1"
    for method, path in (
        ("POST", "models:upload"),
        ("PATCH", "models/m?updateMask=labels"),
        ("POST", "models/m@1:mergeVersionAliases"),
        ("DELETE", "models/m@1:deleteVersion"),
        ("DELETE", "models/m"),
    ):
        assert world.error(method, f"{L}/{path}", key=viewer) == (403, "ROLE_MISSING")


EXPRESSIONS = (
    "",
    'display_name="b"',
    "display_name!=b",
    "model!=id-3",
    'labels.k=x AND labels."a key":*',
    "labels.k!=x",
    "labels:k",
    'labels."it\'s \\"q\\""=y',
)
ORDERS = ("", "create_time", "display_name desc", "display_name, create_time desc", "update_time desc, display_name")


def test_the_database_pages_as_the_contract_says(world: World) -> None:
    """For every filter and order, pages read from the database are those of the same question to the whole list."""
    labels = ({}, {"k": "x"}, {"k": "y", "a key": ""}, {"k": "x", "a key": "1"}, {'it\'s "q"': "y"})
    for number in range(12):
        model = {"displayName": "abc"[number % 3], "labels": labels[number % 5]}
        upload(world, model, modelId=f"id-{number}")
    with world.store.transaction(read_only=True) as tx:
        rows = tx.list(Model, scope=SCOPE)
    for expression in EXPRESSIONS:
        for order in ORDERS:
            query = {"filter": expression, "orderBy": order}
            whole, _ = listing({**query, "pageSize": "1000"}, kind="model").page(rows, _facts)
            seen: list[str] = []
            token = ""
            while True:
                answer = world.json("GET", f"{L}/models", params={**query, "pageSize": "3", "pageToken": token})
                seen += [one["name"].rpartition("/")[2] for one in answer["models"]]
                if not (token := answer.get("nextPageToken", "")):
                    break
            assert seen == [one.id for one in whole], (expression, order)


def _facts(model: Model) -> Facts:
    return Facts(
        kind="model",
        id=model.id,
        display_name=model.display_name,
        labels=model.labels,
        created_at=model.created_at,
        updated_at=model.updated_at,
    )


def test_the_native_route(world: World) -> None:
    """A folder's name is the model's where none is given; labels and description are the model's, or the version's."""
    body = {"artifact_uri": "gs://bkt/river", "project": "my-proj", "max_model_len": 64}
    made = world.json("POST", "/headrace/v1/models", json={**body, "model_id": "m", "labels": {"a": "b"}})
    assert (made["kind"], made["state"], made["targets"]) == (
        "upload_model",
        "SUCCEEDED",
        {"model": "m", "version": "1"},
    )
    more = {"parent": "m", "aliases": ["prod"], "version_description": "second", "labels": {"c": "d"}}
    assert world.json("POST", "/headrace/v1/models", json=body | more)["targets"]["version"] == "2"
    model = world.json("GET", f"{L}/models/m@prod")
    assert (model["displayName"], model["labels"], model["versionId"]) == ("river", {"a": "b", "c": "d"}, "2")
    assert model["headrace"]["servingSpec"] == {"maxModelLen": 64}
    for wrong in ({}, {"artifact_uri": ""}, {"artifact_uri": "gs://b/m", "what": 1}, {"artifact_uri": "ftp://x"}):
        assert world.call("POST", "/headrace/v1/models", json=wrong).status_code == 400
    other = world.key("other", Role.DEPLOYER)
    assert world.call("POST", "/headrace/v1/models", json=body, key=other).status_code == 403


def test_a_version_of_an_upload_is_like_one_of_a_deploy(world: World) -> None:
    """Both make the same rows, so that whatever deploys the one deploys the other."""
    upload(world, {"artifactUri": "file:///weights/smol", "displayName": "smol"}, modelId="a")
    world.deploy(modelConfig={"modelUserId": "b", "modelDisplayName": "smol"})
    with world.store.transaction(read_only=True) as tx:
        mine, theirs = (tx.list(ModelVersion, scope=SCOPE, model_id=each)[0] for each in "ab")
    for field in ("version", "artifact_uri", "spec", "aliases", "fingerprint", "labels", "kept", "resource_version"):
        assert getattr(mine, field) == getattr(theirs, field)
