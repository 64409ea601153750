"""Vertex AI's control plane, as its clients use it."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import SCOPE, World

from headrace.resources.errors import WeightsTruncated

L = f"/v1/{SCOPE}"
DOCUMENT_CURL = b"""{
    "custom_model": {
    "gcs_uri": "/weights/smol"
  },
  "destination": "projects/my-proj/locations/us-central1",
  "model_config": {
     "model_user_id": "my-model",
  },
}"""
"""The custom-weights document's curl body, trailing comma and all, with its shell variables filled in."""


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_deploy_and_poll(world: World, version: str) -> None:
    """A deploy is an operation that speaks the version it was asked in, wherever it is polled."""
    operation = world.json("POST", f"/{version}/{SCOPE}:deploy", content=DOCUMENT_CURL)
    package = f"type.googleapis.com/google.cloud.aiplatform.{version}"
    assert operation["metadata"]["@type"] == f"{package}.DeployOperationMetadata"
    assert "done" not in operation
    assert world.woken.times == 1
    world.advance(operation)
    name = operation["name"]
    polled = [
        world.json("GET", f"{prefix}/{name}?%24alt=json%3Benum-encoding%3Dint") for prefix in ("/ui", "/v1", "/v1beta1")
    ]
    assert polled[0] == polled[1] == polled[2]
    endpoint = world.json("GET", f"{L}/endpoints")["endpoints"][0]
    assert polled[0]["response"] == {
        "@type": f"{package}.DeployResponse",
        "publisherModel": "",
        "endpoint": endpoint["name"],
        "model": f"{SCOPE}/models/my-model",
    }


def test_trailing_commas_only_on_deploy(world: World) -> None:
    """Only :deploy forgives a trailing comma."""
    world.json("POST", f"{L}:deploy", content=DOCUMENT_CURL)
    endpoint = world.json("GET", f"{L}/endpoints")["endpoints"][0]["name"]
    body = b'{"deployedModelId": "1",}'
    assert world.error("POST", f"/v1/{endpoint}:undeployModel", content=body) == (400, "BAD_JSON")


def test_failed_deploy(world: World) -> None:
    """A deployment that fails ends its operation with the code, the evidence and the fix."""
    operation = world.deploy()
    failure = WeightsTruncated("Too short.", evidence="10 of 20 bytes", fix="Copy it again.").failure
    world.advance(operation, "CHECKING FAILED", failure=failure)
    error = world.json("GET", f"/ui/{operation['name']}")["error"]
    assert error["code"] == 9
    assert error["details"][0]["reason"] == "WEIGHTS_TRUNCATED"
    endpoint = world.json("GET", f"{L}/endpoints")["endpoints"][0]
    assert endpoint["deployedModels"][0]["status"] == {
        "availableReplicaCount": 0,
        "lastUpdateTime": endpoint["deployedModels"][0]["status"]["lastUpdateTime"],
        "message": "Too short.",
    }


def test_endpoints(world: World) -> None:
    """An endpoint shows its machine, its traffic and where a dedicated one is reached: by TLS."""
    world.layout.local_login.write_text('{"url": "http://127.0.0.1:8080", "tls_url": "https://127.0.0.1:8443"}')
    world.deploy(
        endpointConfig={"endpointDisplayName": "mine", "endpointUserId": "my-endpoint"},
        deployConfig={
            "dedicatedResources": {
                "machineSpec": {"machineType": "g2-standard-12", "acceleratorType": 11, "acceleratorCount": 1},
            }
        },
    )
    world.deploy()
    endpoint = world.json("GET", f"{L}/endpoints/my-endpoint")
    assert endpoint["displayName"] == "mine"
    assert endpoint["dedicatedEndpointDns"] == "headrace.test:8443"
    (deployed,) = endpoint["deployedModels"]
    assert endpoint["trafficSplit"] == {deployed["id"]: 100}
    assert deployed["dedicatedResources"]["machineSpec"]["acceleratorType"] == "NVIDIA_L4"
    assert world.json("GET", f'{L}/endpoints?filter=display_name="mine"')["endpoints"] == [endpoint]
    assert world.error("GET", f"{L}/endpoints/nothing") == (404, "ENDPOINT_NOT_FOUND")
    assert world.error("GET", "/v1/projects/my-proj/locations/europe-west4/endpoints/my-endpoint")[0] == 404


def test_query_names_the_endpoint(world: World) -> None:
    """The endpoint's own id may come in the query, as the vendor's API takes it."""
    world.json("POST", f"{L}:deploy?endpointId=mine", json={"customModel": {"gcsUri": "/w"}})
    assert world.json("GET", f"{L}/endpoints/mine")["name"] == f"{SCOPE}/endpoints/mine"


def test_models(world: World) -> None:
    """A model is read by id, by version and by alias, percent-encoded or not; its versions are listed."""
    for _ in range(2):
        world.deploy(modelConfig={"modelUserId": "my-model", "containerSpec": {"imageUri": "vllm"}})
    model = world.json("GET", f"{L}/models/my-model")
    assert (model["versionId"], model["versionAliases"]) == ("1", ["default"])
    assert model["containerSpec"] == {"imageUri": "vllm"}
    assert len(model["deployedModels"]) == 1
    assert world.json("GET", f"{L}/models/my-model%40default") == model
    assert world.json("GET", f"{L}/models/my-model@2")["versionId"] == "2"
    assert world.error("GET", f"{L}/models/my-model@3") == (404, "MODEL_NOT_FOUND")
    assert world.error("GET", f"{L}/models/nothing") == (404, "MODEL_NOT_FOUND")
    versions = world.json("GET", f"{L}/models/my-model:listVersions?pageSize=1&orderBy=create_time")
    assert [one["versionId"] for one in versions["models"]] == ["1"]
    rest = world.json(
        "GET", f"{L}/models/my-model:listVersions?pageSize=1&orderBy=create_time&pageToken={versions['nextPageToken']}"
    )
    assert [one["versionId"] for one in rest["models"]] == ["2"]
    assert "nextPageToken" not in rest
    assert world.json("GET", f"{L}/models")["models"] == [model]


def test_undeploy_and_delete(world: World) -> None:
    """What is in use is not deleted; undeployed, it is; each is an operation that can be polled."""
    operation = world.deploy(modelConfig={"modelUserId": "m"}, endpointConfig={"endpointUserId": "e"})
    world.advance(operation)
    assert world.error("DELETE", f"{L}/endpoints/e") == (400, "STILL_IN_USE")
    assert world.error("DELETE", f"{L}/models/m") == (400, "STILL_IN_USE")
    assert world.error("DELETE", f"{L}/models/m@1") == (400, "BAD_FIELD")
    (deployed,) = world.json("GET", f"{L}/endpoints/e")["deployedModels"]
    undeploy = world.json("POST", f"{L}/endpoints/e:undeployModel", json={"deployedModelId": deployed["id"]})
    assert undeploy["name"].startswith(f"{SCOPE}/endpoints/e/operations/")
    assert "done" not in world.json("GET", f"/ui/{undeploy['name']}")
    assert world.json("GET", f"{L}/endpoints/e/operations")["operations"][0]["name"] == undeploy["name"]


def test_delete_an_empty_endpoint(world: World) -> None:
    """An endpoint is deleted with force, once what is on it is gone."""
    world.advance(world.deploy(endpointConfig={"endpointUserId": "e"}))
    deleting = world.json("DELETE", f"{L}/endpoints/e?force=true")
    assert deleting["metadata"]["@type"] == "type.googleapis.com/google.cloud.aiplatform.v1.DeleteOperationMetadata"
    assert world.json("GET", f"{L}/endpoints/e")["headrace"] == {"deleting": True}
    assert world.error("DELETE", f"{L}/endpoints/e?force=maybe") == (400, "BAD_FIELD")


def test_operations(world: World) -> None:
    """Operations are listed newest first and filtered by done; a wait ends with its time; a deploy can be cancelled."""
    first, second = world.deploy(), world.deploy()
    world.advance(first)
    names = [one["name"] for one in world.json("GET", f"{L}/operations")["operations"]]
    assert names == [second["name"], first["name"]]
    done = world.json("GET", f"{L}/operations?filter=done%3Dtrue")["operations"]
    assert [one["name"] for one in done] == [first["name"]]
    assert world.error("DELETE", f"/v1/{second['name']}") == (400, "STILL_IN_USE")
    assert "done" not in world.json("POST", f"/v1/{second['name']}:wait", json={"timeout": "0.01s"})
    assert world.json("POST", f"/v1/{second['name']}:cancel") == {}
    waited = world.json("POST", f"/v1/{second['name']}:wait")
    assert waited["error"]["code"] == 1
    assert waited["error"]["details"][0]["reason"] == "CANCELLED"
    assert world.json("POST", f"/v1/{first['name']}:cancel") == {}
    assert "response" in world.json("GET", f"/v1/{first['name']}")
    assert world.json("DELETE", f"/v1/{first['name']}") == {}
    assert world.error("GET", f"/ui/{first['name']}") == (404, "OPERATION_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{L}/endpoints/1:explain"),
        ("POST", f"{L}/models/1:export"),
        ("GET", f"{L}/batchPredictionJobs"),
        ("POST", "/v1beta1/publishers/google/models/gemma3:predict"),
    ],
)
def test_methods_to_come(world: World, method: str, path: str) -> None:
    """What Vertex AI has and this server has not yet is told apart from what nobody has."""
    assert world.error(method, path) == (501, "NOT_SUPPORTED")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("POST", f"{L}:deploy", {"content": b"{"}, 400, "BAD_JSON"),
        ("POST", f"{L}:deploy", {"content": b"[]"}, 400, "BAD_JSON"),
        ("POST", f"{L}:deploy", {"content": b""}, 400, "BAD_FIELD"),
        ("POST", f"{L}:deploy", {"json": {"customModl": {}}}, 400, "BAD_FIELD"),
        ("POST", f"{L}:deploy", {"json": {"huggingFaceModelId": "a/b/c"}}, 400, "BAD_FIELD"),
        ("POST", f"{L}:deploy", {"json": {"publisherModelName": "publishers/a/models/b"}}, 404, "MODEL_NOT_FOUND"),
        ("POST", f"{L}:deploy", {"json": {"publisherModelName": "google/gemma3"}}, 400, "LICENCE_NOT_ACCEPTED"),
        ("POST", "/v1/projects/my-proj/modelGardenEula:accept", {"json": {}}, 400, "BAD_FIELD"),
        ("POST", "/v1/projects/my-proj/modelGardenEula:check", {"json": {"publisherModel": 3}}, 400, "BAD_FIELD"),
        ("POST", "/v1/projects/my-proj/modelGardenEula:check", {"content": b"["}, 400, "BAD_JSON"),
        ("POST", "/v1/projects/my-proj/modelGardenEula:x", {}, 404, "UNKNOWN_PATH"),
        ("GET", "/v1/publishers/google/models/nothing", {}, 404, "MODEL_NOT_FOUND"),
        ("GET", "/v1/publishers/google/models/gemma3?view=9", {}, 400, "BAD_FIELD"),
        ("GET", "/v1/publishers/google/models/gemma3?isHuggingFaceModel=x", {}, 400, "BAD_FIELD"),
        ("GET", "/v1/publishers/a/models/b?isHuggingFaceModel=true", {}, 404, "MODEL_NOT_FOUND"),
        ("GET", "/v1/publishers/google/models?filter=(", {}, 400, "BAD_FIELD"),
        ("GET", "/v1/publishers/google/models?pageToken=x", {}, 400, "BAD_FIELD"),
        ("GET", "/v1/publishers/google/models?orderBy=size", {}, 400, "BAD_FIELD"),
        ("GET", "/v1/publishers/google/models?listAllVersions=x", {}, 400, "BAD_FIELD"),
        ("POST", f"{L}:deploy", {"content": b" " * (1 << 20) + b"{}"}, 413, "BODY_TOO_LARGE"),
        ("POST", "/v1/projects/-P-/locations/us-central1:deploy", {"content": b"{}"}, 400, "BAD_NAME"),
        ("POST", f"{L}/endpoints/1:undeployModel", {"json": {"deployedModelId": "1"}}, 404, "ENDPOINT_NOT_FOUND"),
        ("POST", f"{L}/endpoints/1:undeployModel", {"json": {}}, 400, "BAD_FIELD"),
        ("DELETE", f"{L}/endpoints/1", {}, 404, "ENDPOINT_NOT_FOUND"),
        ("DELETE", f"{L}/models/1", {}, 404, "MODEL_NOT_FOUND"),
        ("GET", f"{L}/models?pageSize=x", {}, 400, "BAD_FIELD"),
        ("GET", f"{L}/models?pageToken=x", {}, 400, "BAD_FIELD"),
        ("GET", f"{L}/endpoints?filter=(", {}, 400, "BAD_FIELD"),
        ("GET", f"{L}/endpoints?orderBy=size", {}, 400, "BAD_FIELD"),
        ("GET", f"{L}/operations?filter=x", {}, 400, "BAD_FIELD"),
        ("GET", f"{L}/operations/1", {}, 404, "OPERATION_NOT_FOUND"),
        ("POST", f"{L}/operations/1:wait", {"json": {"timeout": 5}}, 400, "BAD_FIELD"),
        ("GET", f"{L}/endpoints/a%2Fb", {}, 404, "UNKNOWN_PATH"),
        ("GET", f"{L}/endpoints/1/", {}, 404, "UNKNOWN_PATH"),
        ("GET", "/v2/projects/p/locations/l/endpoints", {}, 404, "UNKNOWN_PATH"),
        ("PUT", f"/ui/{SCOPE}/operations/1", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/healthz", {}, 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_bad_input(world: World, method: str, path: str, options: dict[str, Any], status: int, code: str) -> None:
    """Every bad request is answered in Google's shape with its own code, and leaves nothing behind."""
    assert world.error(method, path, **options) == (status, code)
    assert world.json("GET", f"{L}/models")["models"] == []
    assert world.json("GET", f"{L}/operations")["operations"] == []


def test_half_a_deploy_is_none(world: World) -> None:
    """A deploy that fails in its middle leaves no row."""
    body = {"customModel": {"gcsUri": "/w"}, "endpointConfig": {"endpointUserId": "NOT AN ID"}}
    assert world.error("POST", f"{L}:deploy", json=body) == (400, "BAD_NAME")
    assert world.json("GET", "/headrace/v1/status")["endpoints"] == []
    assert world.json("GET", f"{L}/models")["models"] == []


def test_accelerators_that_a_machine_lacks_are_an_invalid_argument(world: World) -> None:
    """Refused in the vendor's shape, with what the machine type has and which has what was asked for."""
    wanted = {"machineType": "g2-standard-4", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2}
    body = {"customModel": {"gcsUri": "/w"}, "deployConfig": {"dedicatedResources": {"machineSpec": wanted}}}
    response = world.call("POST", f"{L}:deploy", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["status"]) == (400, "INVALID_ARGUMENT")
    metadata = error["details"][0]["metadata"]
    assert "1 × NVIDIA_L4" in metadata["evidence"]
    assert "g2-standard-24" in metadata["fix"]
