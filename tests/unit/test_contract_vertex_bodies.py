"""Bodies of Vertex AI's requests: the document's own curl commands, what SDKs send, and what is refused."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.vertex.autoscaling import metric_specs_json
from headrace.contracts.vertex.deploy import DeployWish, PublishedWish, read_deploy
from headrace.contracts.vertex.endpoints import read_undeploy
from headrace.contracts.vertex.json_bodies import parse_object
from headrace.contracts.vertex.machine_types import ACCELERATOR_TYPES, accelerator_type, machine_spec_json
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField, BadJson, BadName, HeadraceError, MachineSpecIncomplete, NotSupported
from headrace.resources.names import Scope

SCOPE = Scope("my-proj", "us-central1")

DOCUMENT_CURL = b"""{
    "custom_model": {
    "gcs_uri": "gs://bkt/llama"
  },
  "destination": "projects/my-proj/locations/us-central1",
  "model_config": {
     "model_user_id": "my-model",
  },
}"""
"""The body of the first curl command of Vertex AI's document on custom weights, with its shell variables filled in."""

DOCUMENT_CURL_WITH_MACHINE = b"""{
    "custom_model": {
    "gcs_uri": "gs://bkt/llama"
  },
  "destination": "projects/my-proj/locations/us-central1",
  "model_config": {
     "model_user_id": "my-model",
  },
  "deploy_config": {
    "dedicated_resources": {
      "machine_spec": {
        "machine_type": "g2-standard-12",
        "accelerator_type": "NVIDIA_L4",
        "accelerator_count": 1
      },
      "min_replica_count": 1
    }
  }
}"""
"""The body of the second one."""

SDK = b"""{"customModel": {"gcsUri": "gs://bkt/llama"}, "modelConfig": {"modelDisplayName": "custom-model"},
"endpointConfig": {"endpointDisplayName": "custom-model-endpoint"}, "deployConfig": {"dedicatedResources":
{"machineSpec": {"machineType": "g2-standard-12", "acceleratorType": 11, "acceleratorCount": 1},
"minReplicaCount": 1, "maxReplicaCount": 2}}}"""
"""What google-cloud-aiplatform 2.7.0 sends."""

L4 = MachineSpec(machine_type="g2-standard-12", accelerator_type="NVIDIA_L4", accelerator_count=1)

CONTAINER = {
    "imageUri": "img",
    "command": ["python"],
    "args": ["--model=x"],
    "env": [{"name": "A", "value": "b"}],
    "ports": [{"containerPort": 7080}],
    "predictRoute": "/generate",
    "healthRoute": "/ping",
    "grpcPorts": [{"containerPort": 9000}],
    "deploymentTimeout": "600s",
    "sharedMemorySizeMb": "16384",
    "startupProbe": {"exec": {"command": ["cat", "/ready"]}, "periodSeconds": 5},
    "healthProbe": {"httpGet": {"path": "/x", "port": 80, "httpHeaders": [{"name": "a", "value": "b"}]}},
    "livenessProbe": {"tcpSocket": {"port": 80}},
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def deploy(**body: object) -> DeployWish:
    """Read a deploy body that names weights and whatever else is given."""
    return read_deploy(json.dumps({"customModel": {"gcsUri": "gs://b/m"}, **body}).encode(), SCOPE)


def test_first_curl_of_the_document() -> None:
    """The first curl body of the custom-weights document is read as it stands, trailing commas included."""
    wish = read_deploy(DOCUMENT_CURL, SCOPE)
    assert (wish.artifact_uri, wish.model_id, wish.model_user_id) == ("gs://bkt/llama", "my-model", "my-model")
    assert wish.machine == MachineSpec()
    assert (wish.min_replicas, wish.max_replicas, wish.dedicated, wish.timeout_s) == (1, 1, True, None)


def test_second_curl_of_the_document() -> None:
    """The second one names a machine in snake_case."""
    assert read_deploy(DOCUMENT_CURL_WITH_MACHINE, SCOPE).machine == L4


def test_what_the_sdk_sends() -> None:
    """The SDK's body, with camelCase names and a numbered enum, means the same machine."""
    wish = read_deploy(SDK, SCOPE)
    assert wish.machine == L4
    assert (wish.min_replicas, wish.max_replicas) == (1, 2)
    assert (wish.model_display_name, wish.endpoint_display_name) == ("custom-model", "custom-model-endpoint")


def test_what_gcloud_sends_besides() -> None:
    """Switches that are off, as gcloud sends them, are accepted; an endpoint that is not to be dedicated is not."""
    wish = deploy(
        deployConfig={"dedicatedResources": {"minReplicaCount": 1, "spot": False}, "fastTryoutEnabled": False},
        endpointConfig={"dedicatedEndpointEnabled": False},
        modelConfig={"acceptEula": False},
    )
    assert not wish.dedicated


def test_container_is_kept_whole() -> None:
    """A container specification comes back with every field that was sent, and its time-out is obeyed."""
    wish = deploy(modelConfig={"containerSpec": CONTAINER})
    assert wish.spec.container == CONTAINER
    assert wish.timeout_s == 600.0


@pytest.mark.parametrize("uri", ["gs://bkt/m", "file:///weights/m", "/weights/m"])
def test_where_weights_may_be(uri: str) -> None:
    """A bucket, a file address and an absolute path are all taken."""
    assert read_deploy(json.dumps({"customModel": {"gcsUri": uri}}).encode(), SCOPE).artifact_uri == uri


def test_integers_as_strings() -> None:
    """Integers may come as decimal strings and as whole floats, as the JSON mapping of protocol buffers says."""
    counts = {"minReplicaCount": "2", "maxReplicaCount": 4.0, "initialReplicaCount": "3"}
    wish = deploy(deployConfig={"dedicatedResources": counts})
    assert (wish.min_replicas, wish.max_replicas, wish.initial_replicas) == (2, 4, 3)


ONLINE = "aiplatform.googleapis.com/prediction/online"
PROMETHEUS = "prometheus.googleapis.com/vertex"


def scaling(*specs: object) -> dict[str, object]:
    """A body's fields that ask to scale by these."""
    resources = {"minReplicaCount": 1, "maxReplicaCount": 4, "autoscalingMetricSpecs": list(specs)}
    return {"deployConfig": {"dedicatedResources": resources}}


def test_metrics_to_scale_by_are_read_and_given_back() -> None:
    """Each of the vendor's names, camelCase or snake_case; a percentage without a target is 60."""
    specs = [
        {"metricName": f"{ONLINE}/cpu/utilization", "target": 70},
        {"metric_name": f"{ONLINE}/accelerator/duty_cycle"},
        {"metricName": f"{ONLINE}/request_count", "target": "30"},
        {"metricName": f"{PROMETHEUS}_dcgm_fi_dev_gpu_util", "target": 50},
        {"metricName": f"{PROMETHEUS}_vllm_gpu_cache_usage_perc", "target": 80},
        {"metricName": f"{PROMETHEUS}_vllm_num_requests_waiting", "target": 5},
    ]
    wish = deploy(**scaling(*specs))
    assert wish.autoscaling is not None
    assert [one.target for one in wish.autoscaling.targets] == [70, 60, 30, 50, 80, 5]
    assert [one["metricName"] for one in metric_specs_json(wish.autoscaling)] == [
        one.get("metricName", one.get("metric_name")) for one in specs
    ]
    assert deploy().autoscaling is None
    assert metric_specs_json(None) == []


def to_zero(**fields: object) -> dict[str, object]:
    """A body's fields that ask for it."""
    return {"deployConfig": {"dedicatedResources": {"minReplicaCount": 0, "scaleToZeroSpec": fields}}}


def test_scaling_to_zero_is_a_time_without_requests() -> None:
    """Zero replicas at least means one while somebody asks; the idle period is when none runs."""
    wish = deploy(**to_zero(idleScaledownPeriod="300s", minScaleupPeriod="300s"))
    assert (wish.min_replicas, wish.max_replicas, wish.scale_to_zero_after_s) == (1, 1, 300.0)
    assert deploy().scale_to_zero_after_s == 0.0
    of_an_hour = deploy(deployConfig={"dedicatedResources": {"minReplicaCount": 0, "maxReplicaCount": 2}})
    assert (of_an_hour.min_replicas, of_an_hour.max_replicas, of_an_hour.scale_to_zero_after_s) == (1, 2, 3600.0)


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        (to_zero(), BadField, "idleScaledownPeriod must say"),
        (to_zero(idleScaledownPeriod="0s"), BadField, "idleScaledownPeriod must say"),
        (to_zero(minScaleupPeriod="300s"), BadField, "idleScaledownPeriod must say"),
        (to_zero(idleScaledownPeriod="300s", minScaleupPeriod="600s"), NotSupported, "minScaleupPeriod"),
        (
            {
                "deployConfig": {
                    "dedicatedResources": {"minReplicaCount": 1, "scaleToZeroSpec": {"idleScaledownPeriod": "300s"}}
                }
            },
            BadField,
            "minReplicaCount of 0",
        ),
        (scaling({"metricName": "gpu", "target": 1}), BadField, "autoscalingMetricSpecs[0]: There is no such"),
        (scaling({"metricName": f"{ONLINE}/cpu/utilization", "target": 101}), BadField, "out of its range"),
        (scaling({"metricName": f"{ONLINE}/request_count"}), BadField, "out of its range"),
        (scaling(*[{"metricName": f"{ONLINE}/request_count", "target": 3}] * 2), BadField, "twice"),
        (scaling({"metricName": f"{ONLINE}/request_count", "target": 1.5}), BadField, "[0].target must be an integer"),
        (scaling("cpu"), BadField, "autoscalingMetricSpecs[0] must be an object"),
        (
            scaling({"metricName": f"{ONLINE}/request_count", "target": 3, "monitoredResourceLabels": {"a": "b"}}),
            NotSupported,
            "monitoredResourceLabels",
        ),
        ({"modelConfg": {}}, BadField, "'modelConfig'"),
        ({"modelConfig": {"modelUserID": "x"}}, BadField, "'modelConfig.modelUserID'"),
        (
            {"modelConfig": {"containerSpec": {"imageUri": 3}}},
            BadField,
            "modelConfig.containerSpec.imageUri must be a str",
        ),
        ({"modelConfig": []}, BadField, "modelConfig must be an object"),
        ({"modelConfig": {"acceptEula": "yes"}}, BadField, "modelConfig.acceptEula must be true or false"),
        ({"modelConfig": {"modelUserId": "a", "model_user_id": "a"}}, BadField, "given twice"),
        ({"modelConfig": {"modelUserId": "Not An Id"}}, BadName, "modelConfig.modelUserId"),
        ({"modelConfig": {"containerSpec": {"deploymentTimeout": "ten minutes"}}}, BadField, "a duration"),
        ({"modelConfig": {"containerSpec": {"deploymentTimeout": "0s"}}}, BadField, "more than 0s"),
        ({"modelConfig": {"containerSpec": {"deploymentTimeout": "999999999999s"}}}, BadField, "at most 2592000s"),
        ({"modelConfig": {"containerSpec": {"ports": [{"containerPort": "x"}]}}}, BadField, "ports[0].containerPort"),
        ({"destination": "projects/other/locations/us-central1"}, BadField, "destination"),
        ({"customModel": {}}, BadField, "customModel.gcsUri is missing"),
        ({"customModel": {"gcsUri": 7}}, BadField, "customModel.gcsUri must be a string"),
        ({"customModel": None}, BadField, "customModel is missing"),
        ({"publisherModelName": "publishers/x/models/y"}, BadField, "exclude each other"),
        (
            {"customModel": None, "publisherModelName": "publishers/x/models/y", "huggingFaceModelId": "a/b"},
            BadField,
            "exclude each other",
        ),
        ({"customModel": None, "publisherModelName": "  "}, BadField, "customModel is missing"),
        ({"deployConfig": {"dedicatedResources": {"minReplicaCount": -1}}}, BadField, "at least 0"),
        ({"deployConfig": {"dedicatedResources": {"maxReplicaCount": 0}}}, BadField, "less than"),
        (
            {"deployConfig": {"dedicatedResources": {"maxReplicaCount": 2, "initialReplicaCount": 3}}},
            BadField,
            "initialReplicaCount is from minReplicaCount",
        ),
        ({"deployConfig": {"dedicatedResources": {"initialReplicaCount": -1}}}, BadField, "initialReplicaCount"),
        ({"deployConfig": {"dedicatedResources": {"minReplicaCount": 1.5}}}, BadField, "an integer of 32 bits"),
        ({"deployConfig": {"dedicatedResources": {"minReplicaCount": True}}}, BadField, "an integer of 32 bits"),
        ({"deployConfig": {"dedicatedResources": {"minReplicaCount": 2**40}}}, BadField, "an integer of 32 bits"),
        ({"deployConfig": {"dedicatedResources": {"minReplicaCount": 3, "maxReplicaCount": 2}}}, BadField, "less than"),
        (
            {"deployConfig": {"dedicatedResources": {"flexStart": {"maxRuntimeDuration": "1s"}}}},
            NotSupported,
            "flexStart",
        ),
    ],
)
def test_bad_bodies(body: dict[str, object], error: type[HeadraceError], says: str) -> None:
    """Each fault is refused with its own class and named by its path."""
    with pytest.raises(error) as caught:
        deploy(**body)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "machine",
    [
        {"machineType": "g2-standard-12"},
        {"machineType": "g2-standard-12", "acceleratorType": "NVIDIA_L4"},
        {"acceleratorType": 11, "acceleratorCount": 1},
        {"machineType": "g2-standard-12", "acceleratorType": 0, "acceleratorCount": 1},
    ],
)
def test_machine_in_part(machine: dict[str, object]) -> None:
    """Machine type, accelerator type and count go together: all three or none."""
    with pytest.raises(MachineSpecIncomplete):
        deploy(deployConfig={"dedicatedResources": {"machineSpec": machine}})


@pytest.mark.parametrize("number", [number for number in ACCELERATOR_TYPES if number])
def test_spellings_of_an_accelerator(number: int) -> None:
    """An accelerator's number, the number as text, its name, and the name in lower case are one and the same."""
    name = ACCELERATOR_TYPES[number]
    assert {accelerator_type(spelling, "f") for spelling in (number, str(number), name, name.lower())} == {name}
    wire = machine_spec_json(MachineSpec(machine_type="m", accelerator_type=name, accelerator_count=2))
    assert wire == {"machineType": "m", "acceleratorType": name, "acceleratorCount": 2}


@pytest.mark.parametrize("value", ["NVIDIA_L5", 99, -1, "", True, 1.5, [], "٣"])
def test_unknown_accelerators(value: object) -> None:
    """What the enum does not have is refused."""
    with pytest.raises(BadField, match="has no value"):
        accelerator_type(value, "f")


@pytest.mark.parametrize(
    "body", [b"{", b"nul", b'{"a": 01}', b'{"a": NaN}', b"\xff\xfe", b'{"a": "\xff"}', b"[" * 100_000]
)
def test_not_json(body: bytes) -> None:
    """What is no JSON is refused, forgiving or not, however it is broken."""
    for trailing_commas in (False, True):
        with pytest.raises(BadJson):
            parse_object(body, trailing_commas=trailing_commas)


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"3", b"null"])
def test_not_an_object(body: bytes) -> None:
    """JSON that is no object is refused."""
    with pytest.raises(BadJson, match="not a JSON object"):
        parse_object(body)


def test_trailing_comma_only_where_it_is_forgiven() -> None:
    """A trailing comma is an error unless the method forgives it."""
    assert parse_object(b'{"a": [1, 2,\n], }', trailing_commas=True) == {"a": [1, 2]}
    with pytest.raises(BadJson):
        parse_object(b'{"a": 1,}')
    with pytest.raises(BadJson):
        read_undeploy(b'{"deployedModelId": "1",}')


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_forgiving_changes_nothing_in_valid_json(value: dict[str, object]) -> None:
    """Valid JSON means the same to the forgiving reader as to the strict one."""
    body = json.dumps(value).encode()
    assert parse_object(body, trailing_commas=True) == parse_object(body) == value


@given(st.text(alphabet='",}] \\[{:a\n'))
def test_strings_are_left_alone(text: str) -> None:
    """A comma before a bracket inside a string stays, even where one outside is taken away."""
    body = b'{"a": ' + msgspec.json.encode(text) + b",}"
    assert parse_object(body, trailing_commas=True) == {"a": text}


@given(st.binary(max_size=200) | st.text(alphabet='{}[],:"\\ \n1atrue', max_size=60).map(str.encode))
def test_any_bytes(body: bytes) -> None:
    """Whatever the bytes are, the answer is an object or BAD_JSON."""
    with suppress(BadJson):
        assert isinstance(parse_object(body, trailing_commas=True), dict)


@given(st.dictionaries(st.sampled_from(["customModel", "modelConfig", "deployConfig", "destination"]), json_values))
def test_any_json(body: dict[str, object]) -> None:
    """Whatever JSON is asked to be deployed, the answer is a wish or an error of ours."""
    with suppress(HeadraceError):
        read_deploy(json.dumps(body).encode(), SCOPE)


def test_undeploy() -> None:
    """An undeploy body names the deployed model, and may bring the traffic of the others."""
    assert read_undeploy(b'{"deployedModelId": "7"}') == ("7", None)
    assert read_undeploy(b'{"deployed_model_id": "7", "trafficSplit": {"8": "100"}}') == ("7", {"8": 100})
    assert read_undeploy(b'{"deployedModelId": "7", "trafficSplit": {"8": 0}}') == ("7", None)
    with pytest.raises(BadField, match="deployedModelId is missing"):
        read_undeploy(b"{}")
    with pytest.raises(BadField, match="must add up to 100"):
        read_undeploy(b'{"deployedModelId": "7", "trafficSplit": {"8": 99}}')


def test_open_model_of_the_sdk() -> None:
    """What `OpenModel(…).deploy(accept_eula=True)` of google-cloud-aiplatform 2.7.0 sends names a published model."""
    body = b"""{"publisherModelName": "publishers/google/models/gemma3@gemma-3-1b-it", "modelConfig": {"acceptEula":
    true, "containerSpec": {"imageUri": "img", "sharedMemorySizeMb": "16384"}}, "endpointConfig":
    {"dedicatedEndpointEnabled": true}, "deployConfig": {"dedicatedResources": {"machineSpec": {"machineType":
    "g2-standard-12", "acceleratorType": 11, "acceleratorCount": 1}, "minReplicaCount": 1, "maxReplicaCount": 2}}}"""
    wish = read_deploy(body, SCOPE)
    assert wish.artifact_uri == ""
    assert wish.published == PublishedWish(
        publisher_model="publishers/google/models/gemma3@gemma-3-1b-it", accepts_eula=True
    )
    assert wish.machine.machine_type == "g2-standard-12"


def test_hugging_face_models_of_the_sdk() -> None:
    """The Hub's name and its token are taken, and the token is in no text that a log could have."""
    body = b"""{"huggingFaceModelId": "qwen/qwen3-0.6b", "modelConfig": {"huggingFaceAccessToken": "hf_x"}}"""
    wish = read_deploy(body, SCOPE)
    assert wish.published == PublishedWish(hub_model="qwen/qwen3-0.6b", hub_token="hf_x")
    assert "hf_x" not in repr(wish)
