"""Vertex AI's answers: operations, endpoints, models and pages of lists."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.vertex.endpoints import Bound, endpoint_json
from headrace.contracts.vertex.listing import Facts, listing, page_size
from headrace.contracts.vertex.models import model_json, pick_version, split_version
from headrace.contracts.vertex.operations import filter_done, operation_json, read_wait
from headrace.resources.autoscaling import Autoscaling, Metric, MetricTarget, Scaling
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import BadField, Cancelled, Failure, ModelNotFound, WeightsTruncated, page_url
from headrace.resources.models import Model, ModelVersion, ServingSpec
from headrace.resources.names import Scope
from headrace.resources.operations import Operation
from headrace.resources.states import OperationState

SCOPE = Scope("my-proj", "us-central1")
AT = 1795239606.0
AT_WIRE = "2026-11-21T05:40:06.000000Z"


def operation(**fields: Any) -> Operation:
    """A deploy asked for through v1beta1."""
    base: dict[str, Any] = {
        "scope": SCOPE,
        "id": "9",
        "parent": str(SCOPE),
        "kind": "deploy",
        "contract": "vertex/v1beta1",
        "targets": {"endpoint": "1", "model": "2", "deployment": "3"},
        "created_at": AT,
        "updated_at": AT,
    }
    return Operation(**base | fields)


def test_running_operation() -> None:
    """A running operation has a name and metadata, and neither done nor an outcome."""
    assert operation_json(operation()) == {
        "name": "projects/my-proj/locations/us-central1/operations/9",
        "metadata": {
            "@type": "type.googleapis.com/google.cloud.aiplatform.v1beta1.DeployOperationMetadata",
            "genericMetadata": {"createTime": AT_WIRE, "updateTime": AT_WIRE},
            "destination": "projects/my-proj/locations/us-central1",
            "modelId": "2",
        },
    }


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_done_operation_speaks_the_version_it_was_asked_in(version: str) -> None:
    """The response's type is of exactly the API version that was called."""
    wire = operation_json(operation(state=OperationState.SUCCEEDED, contract=f"vertex/{version}"))
    assert wire["done"] is True
    assert wire["response"] == {
        "@type": f"type.googleapis.com/google.cloud.aiplatform.{version}.DeployResponse",
        "publisherModel": "",
        "endpoint": "projects/my-proj/locations/us-central1/endpoints/1",
        "model": "projects/my-proj/locations/us-central1/models/2",
    }


def test_operation_of_another_contract() -> None:
    """What was asked for natively can be polled by the vendor's clients too."""
    wire = operation_json(operation(state=OperationState.SUCCEEDED, contract="native/v1"))
    assert wire["response"]["@type"].endswith("aiplatform.v1beta1.DeployResponse")


@pytest.mark.parametrize(
    ("kind", "metadata", "response"),
    [
        ("undeploy", "UndeployModelOperationMetadata", "google.cloud.aiplatform.v1.UndeployModelResponse"),
        ("delete_endpoint", "DeleteOperationMetadata", "google.protobuf.Empty"),
        ("delete_model", "DeleteOperationMetadata", "google.protobuf.Empty"),
    ],
)
def test_kinds_of_operations(kind: str, metadata: str, response: str) -> None:
    """Each kind has its own metadata and response, nothing else in them."""
    wire = operation_json(operation(kind=kind, state=OperationState.SUCCEEDED, contract="vertex/v1"))
    assert wire["metadata"]["@type"] == f"type.googleapis.com/google.cloud.aiplatform.v1.{metadata}"
    assert set(wire["metadata"]) == {"@type", "genericMetadata"}
    assert wire["response"] == {"@type": f"type.googleapis.com/{response}"}


@pytest.mark.parametrize(
    ("kind", "metadata", "response"),
    [
        ("create_endpoint", "CreateEndpointOperationMetadata", "Endpoint"),
        ("deploy_model", "DeployModelOperationMetadata", "DeployModelResponse"),
        ("mutate_deployed_model", "MutateDeployedModelOperationMetadata", "MutateDeployedModelResponse"),
    ],
)
def test_operations_on_endpoints_answer_with_what_they_made(kind: str, metadata: str, response: str) -> None:
    """An endpoint, or a deployed model: its names, in fields that the vendor's message has in every version."""
    targets = {"endpoint": "1", "model": "2", "version": "7", "deployed_model": "4", "display_name": "d"}
    wire = operation_json(
        operation(kind=kind, state=OperationState.SUCCEEDED, contract="vertex/v1beta1", targets=targets)
    )
    package = "type.googleapis.com/google.cloud.aiplatform.v1beta1"
    assert wire["metadata"]["@type"] == f"{package}.{metadata}"
    assert wire["response"].pop("@type") == f"{package}.{response}"
    if kind == "create_endpoint":
        assert set(wire["response"]) == {"name", "displayName", "createTime", "updateTime"}
        assert wire["response"]["name"].endswith("/endpoints/1")
    else:
        model = f"{SCOPE}/models/2"
        assert wire["response"] == {
            "deployedModel": {"id": "4", "model": model, "modelVersionId": "7", "displayName": "d"}
        }


def test_failed_operation() -> None:
    """A failure is a google.rpc.Status with gRPC's number and our code, evidence and fix in its details."""
    failure = WeightsTruncated("Too short.", evidence="10 of 20 bytes", fix="Copy it again.").failure
    wire = operation_json(operation(state=OperationState.FAILED, failure=failure))
    assert "response" not in wire
    assert wire["error"]["code"] == 9
    assert "Too short." in wire["error"]["message"]
    info = wire["error"]["details"][0]
    assert (info["@type"], info["reason"]) == ("type.googleapis.com/google.rpc.ErrorInfo", "WEIGHTS_TRUNCATED")
    assert info["metadata"] == {"evidence": "10 of 20 bytes", "fix": "Copy it again."}
    page = wire["error"]["details"][-1]
    assert page["@type"] == "type.googleapis.com/google.rpc.Help"
    assert page["links"][0]["url"] == page_url("WEIGHTS_TRUNCATED")


def test_cancelled_operation() -> None:
    """A cancelled operation has google.rpc.Code's 1."""
    wire = operation_json(operation(state=OperationState.FAILED, failure=Cancelled("Stopped.").failure))
    assert wire["error"]["code"] == 1


def test_filter_and_wait() -> None:
    """Operations are filtered by done only; a wait reads its time-out."""
    assert (filter_done(""), filter_done("done = true"), filter_done('done="false"')) == (None, True, False)
    with pytest.raises(BadField):
        filter_done("metadata.x=1")
    assert (read_wait(b"", default_s=5), read_wait(b'{"timeout": "1.5s"}', default_s=5)) == (5, 1.5)


ENDPOINT = Endpoint(scope=SCOPE, id="1", display_name="custom-model-endpoint", created_at=AT, updated_at=AT)
POOL = Deployment(
    scope=SCOPE,
    id="3",
    model_id="2",
    model_version="1",
    machine=MachineSpec(machine_type="g2-standard-12", accelerator_type="NVIDIA_L4", accelerator_count=1),
    deadline_at=AT,
    created_at=AT,
    updated_at=AT,
)
BINDING = DeployedModel(
    scope=SCOPE, id="4", endpoint_id="1", deployment_id="3", display_name="custom-model", created_at=AT
)


def test_endpoint() -> None:
    """An endpoint looks as captured from the vendor, with our own facts apart in one field."""
    wire = endpoint_json(ENDPOINT, [Bound(BINDING, POOL, 1)], host="localhost:8080")
    deployed = wire.pop("deployedModels")
    assert wire == {
        "name": "projects/my-proj/locations/us-central1/endpoints/1",
        "displayName": "custom-model-endpoint",
        "trafficSplit": {"4": 100},
        "etag": "v1",
        "labels": {},
        "createTime": AT_WIRE,
        "updateTime": AT_WIRE,
        "dedicatedEndpointEnabled": True,
        "dedicatedEndpointDns": "localhost:8080",
    }
    assert deployed[0].pop("headrace")["state"] == "ACCEPTED"
    assert deployed == [
        {
            "id": "4",
            "model": "projects/my-proj/locations/us-central1/models/2",
            "modelVersionId": "1",
            "displayName": "custom-model",
            "createTime": AT_WIRE,
            "dedicatedResources": {
                "machineSpec": {"machineType": "g2-standard-12", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1},
                "minReplicaCount": 1,
                "maxReplicaCount": 1,
            },
            "status": {"availableReplicaCount": 1, "lastUpdateTime": AT_WIRE},
        }
    ]


def test_endpoint_tells_when_it_scales_to_zero() -> None:
    """As it was asked for: no replica at least, after how long without a request, and with how many it wakes."""
    pool = msgspec.structs.replace(POOL, scale_to_zero_after_s=1_234_567.5, max_replicas=3, initial_replicas=2)
    wire = endpoint_json(ENDPOINT, [Bound(BINDING, pool, 0)], host="h")
    resources = wire["deployedModels"][0]["dedicatedResources"]
    assert resources["minReplicaCount"] == 0
    assert resources["scaleToZeroSpec"] == {"idleScaledownPeriod": "1234567.5s"}
    assert resources["initialReplicaCount"] == 2, "with how many it wakes"


def test_endpoint_gives_back_what_was_said_of_it() -> None:
    """Description and timeout; of a deployed model the vendor's own settings in their places, and who shares it."""
    endpoint = msgspec.structs.replace(ENDPOINT, description="For tests.", inference_timeout_s=90.0)
    settings = {"spot": True, "serviceAccount": "a@b", "enableAccessLogging": True}
    binding = msgspec.structs.replace(BINDING, settings=settings, traffic=0)
    other = f"{SCOPE}/endpoints/9"
    wire = endpoint_json(endpoint, [Bound(binding, POOL, 1, (other,))], host="h")
    assert (wire["description"], wire["clientConnectionConfig"]) == ("For tests.", {"inferenceTimeout": "90s"})
    assert wire["trafficSplit"] == {"4": 0}, "one without traffic is there: the SDK undeploys what it finds here"
    (deployed,) = wire["deployedModels"]
    assert deployed["dedicatedResources"]["spot"] is True
    assert (deployed["serviceAccount"], deployed["enableAccessLogging"]) == ("a@b", True)
    assert deployed["headrace"]["sharedWith"] == [other]
    automatic = msgspec.structs.replace(BINDING, settings={"automaticResources": True})
    (deployed,) = endpoint_json(endpoint, [Bound(automatic, POOL, 1)], host="h")["deployedModels"]
    assert deployed["automaticResources"]["minReplicaCount"] == 1
    assert "dedicatedResources" not in deployed


def test_endpoint_tells_what_it_scales_by_and_what_its_replicas_wait_for() -> None:
    """The specs by the vendor's names; in the status what keeps replicas from being started."""
    pool = msgspec.structs.replace(
        POOL,
        max_replicas=4,
        autoscaling=Autoscaling(targets=(MetricTarget(Metric.WAITING, 5), MetricTarget(Metric.CONCURRENCY, 9))),
        scaling=Scaling(replicas=3, pending="No room."),
    )
    (wire,) = endpoint_json(ENDPOINT, [Bound(BINDING, pool, 1)], host="h")["deployedModels"]
    assert wire["dedicatedResources"]["autoscalingMetricSpecs"] == [
        {"metricName": "prometheus.googleapis.com/vertex_vllm_num_requests_waiting", "target": 5}
    ]
    assert wire["status"]["message"] == "No room."


def test_endpoint_tells_why_it_does_not_get_on() -> None:
    """A deployed model's status carries what went wrong."""
    pool = msgspec.structs.replace(POOL, failure=Failure("NO_CAPACITY", "No room."))
    wire = endpoint_json(ENDPOINT, [Bound(BINDING, pool, 0)], host="h")
    assert wire["deployedModels"][0]["status"]["message"] == "No room."
    assert wire["deployedModels"][0]["headrace"]["failure"]["code"] == "NO_CAPACITY"


MODEL = Model(scope=SCOPE, id="2", display_name="m", labels={"k": "v"}, created_at=AT, updated_at=AT)
VERSIONS = [
    ModelVersion(scope=SCOPE, model_id="2", version="1", artifact_uri="gs://b/1", aliases=("default",), created_at=AT),
    ModelVersion(
        scope=SCOPE,
        model_id="2",
        version="10",
        artifact_uri="gs://b/10",
        aliases=("prod",),
        spec=ServingSpec(container={"imageUri": "i"}),
        created_at=AT,
    ),
]


def test_versions_of_a_model() -> None:
    """A version is found by number, by alias, or as the default one."""
    assert split_version("2@prod") == ("2", "prod")
    assert pick_version(MODEL, VERSIONS, "").version == "1"
    assert pick_version(MODEL, VERSIONS, "prod").version == "10"
    assert pick_version(MODEL, VERSIONS, "10").version == "10"
    without_default = [msgspec.structs.replace(one, aliases=()) for one in VERSIONS]
    assert pick_version(MODEL, without_default, "").version == "10"
    with pytest.raises(ModelNotFound, match="no version or alias '3'"):
        pick_version(MODEL, VERSIONS, "3")


def test_model() -> None:
    """A model shows one version, its container, and where it is deployed."""
    wire = model_json(MODEL, VERSIONS[1], [BINDING])
    assert wire["name"] == "projects/my-proj/locations/us-central1/models/2"
    assert (wire["versionId"], wire["versionAliases"], wire["artifactUri"]) == ("10", ["prod"], "gs://b/10")
    assert wire["containerSpec"] == {"imageUri": "i"}
    assert wire["deployedModels"] == [
        {"endpoint": "projects/my-proj/locations/us-central1/endpoints/1", "deployedModelId": "4"}
    ]


def facts(number: int) -> Facts:
    """Item N of a list, made N seconds after the first; its name repeats every third."""
    labels = {"even": "yes"} if number % 2 == 0 else {}
    name = f"name {number % 3}"
    return Facts(
        kind="model", id=f"{number:03}", display_name=name, labels=labels, created_at=number, updated_at=-number
    )


def ids(parameters: dict[str, str], count: int = 10) -> list[int]:
    """What one page holds."""
    page, _ = listing(parameters, kind="model").page(range(count), facts)
    return page


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("", [5, 4, 3, 2, 1, 0]),
        ('display_name="name 1"', [4, 1]),
        ('displayName = "name 1" AND labels.even="yes"', [4]),
        ("labels.even:*", [4, 2, 0]),
        ("labels:even", [4, 2, 0]),
        ('labels."even"=yes AND model!=002', [4, 0]),
        ("labels.even!=yes", [5, 3, 1]),
        ("model=003", [3]),
        ('display_name="nobody"', []),
    ],
)
def test_filters(expression: str, found: list[int]) -> None:
    """Comparisons joined by AND pick items, newest first."""
    assert ids({"filter": expression}, count=6) == found


@pytest.mark.parametrize(
    "expression",
    [
        "x",
        "display_name",
        'a="1"',
        'model="1" AND',
        'model="1" OR model="2"',
        "(",
        'model="',
        "model:*",
        "model.x=1",
        "labels=x",
        "labels.a:b",
        'labels.""=x',
        'model="\0"',
    ],
)
def test_bad_filters(expression: str) -> None:
    """What is not understood is refused, never ignored."""
    with pytest.raises(BadField, match="filter is not understood"):
        listing({"filter": expression}, kind="model")


def test_orders() -> None:
    """Items come in the order asked for, both ways."""
    assert ids({"orderBy": "create_time"}, 3) == [0, 1, 2]
    assert ids({"orderBy": "updateTime"}, 3) == [2, 1, 0]
    assert ids({"orderBy": "display_name desc"}, 6) == [5, 2, 4, 1, 3, 0]
    assert ids({"orderBy": "display_name, create_time desc"}, 6) == [3, 0, 4, 1, 5, 2]
    assert ids({"orderBy": "display_name desc,createTime asc"}, 6) == [2, 5, 1, 4, 0, 3]
    for order in ("size", "create_time up", "create_time display_name", "create_time,", "create_time, createTime desc"):
        with pytest.raises(BadField, match="orderBy"):
            listing({"orderBy": order}, kind="model")


@given(
    count=st.integers(0, 40),
    size=st.integers(1, 12),
    order=st.sampled_from(
        ["", "create_time", "display_name", "display_name desc", "update_time", "display_name desc, create_time"]
    ),
    gone=st.sets(st.integers(0, 39)),
)
def test_pages_make_the_whole(count: int, size: int, order: str, gone: set[int]) -> None:
    """Pages together hold every item once and in order, even when items vanish while one reads."""
    question = {"orderBy": order}
    whole = ids({**question, "pageSize": "1000"}, count)
    seen: list[int] = []
    left: set[int] = set(range(count))
    token = ""
    while True:
        page, token = listing({**question, "pageSize": str(size), "pageToken": token}, kind="model").page(
            sorted(left), facts
        )
        seen += page
        if not token:
            break
        left -= gone
    assert seen == [number for number in whole if number in seen]
    assert set(seen) >= set(range(count)) - gone


@pytest.mark.parametrize("token", ["x", "!!!", "WyJhIiwxXQ", "é", "e30"])
def test_foreign_tokens(token: str) -> None:
    """A token that is not ours, or of another question, is refused."""
    with pytest.raises(BadField, match="pageToken"):
        listing({"pageToken": token}, kind="model")


def test_token_of_another_question() -> None:
    """A page's token is good for its own question only."""
    _, token = listing({"pageSize": "1"}, kind="model").page(range(3), facts)
    for other in ({"orderBy": "display_name"}, {"filter": "labels.even:*"}):
        with pytest.raises(BadField, match="another question"):
            listing({"pageToken": token, **other}, kind="model")


def test_page_sizes() -> None:
    """A page has 100 items unless told, 1000 at most, and a size that is no number is refused."""
    assert [page_size(query) for query in ({}, {"pageSize": "0"}, {"pageSize": "7"}, {"page_size": "5000"})] == [
        100,
        100,
        7,
        1000,
    ]
    for text in ("-1", "x", "1.5", "9999999999"):
        with pytest.raises(BadField, match="pageSize"):
            page_size({"pageSize": text})
