"""Bodies that make and change endpoints, and put models on them: what SDKs send, and what is refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts.vertex.autoscaling import metric_specs_json
from headrace.contracts.vertex.deploy_model import read_deploy_model, read_mutate
from headrace.contracts.vertex.endpoint_bodies import read_endpoint, read_endpoint_update, read_split
from headrace.contracts.vertex.timestamps import etag, version_of
from headrace.resources.autoscaling import Autoscaling
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField, BadJson, HeadraceError, MachineSpecIncomplete, NotSupported
from headrace.resources.names import Scope

SCOPE = Scope("my-proj", "us-central1")
MODEL = f"{SCOPE}/models/64"
METRICS = [
    {"metricName": "aiplatform.googleapis.com/prediction/online/cpu/utilization", "target": 60},
    {"metricName": "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle", "target": 70},
]
FIELDS = (
    *("displayName", "labels", "trafficSplit", "clientConnectionConfig", "inferenceTimeout", "deployedModel", "model"),
    *("id", "dedicatedResources", "automaticResources", "machineSpec", "machineType", "acceleratorType", "updateMask"),
    *("minReplicaCount", "maxReplicaCount", "autoscalingMetricSpecs", "metricName", "systemLabels", "etag", "0"),
)
SDK_DEPLOY: dict[str, Any] = {
    "deployedModel": {
        "model": f"{MODEL}@1",
        "displayName": "d1",
        "dedicatedResources": {
            "machineSpec": {"machineType": "n1-standard-4", "acceleratorType": 5, "acceleratorCount": 1},
            "minReplicaCount": 1,
            "maxReplicaCount": 3,
            "autoscalingMetricSpecs": METRICS,
        },
        "serviceAccount": "a@b",
        "enableAccessLogging": True,
    },
    "trafficSplit": {"0": 20, "71": 80},
}
"""What google-cloud-aiplatform 2.7.0 sends."""


def test_endpoint_of_the_sdk() -> None:
    """What the SDK sends to make one; without a word about it, it is a dedicated one."""
    wish = read_endpoint(b'{"displayName": "e2", "labels": {"a": "b"}}')
    assert (wish.display_name, wish.labels, wish.dedicated, wish.inference_timeout_s) == ("e2", {"a": "b"}, True, 0)
    body = b'{"displayName": "e3", "clientConnectionConfig": {"inferenceTimeout": "1200s"}}'
    assert read_endpoint(body).inference_timeout_s == 1200
    assert not read_endpoint(b'{"display_name": "e", "dedicated_endpoint_enabled": false}').dedicated


def test_logging_config_is_the_request_log() -> None:
    """The vendor's request and response logging turns ours on, at its rate; switched off, or absent, it is off."""
    on = b'{"displayName": "e", "predictRequestResponseLoggingConfig": {"enabled": true, "samplingRate": 0.5}}'
    log = read_endpoint(on).request_log
    assert log is not None
    assert log.sampling_rate == 0.5
    assert read_endpoint(on.replace(b"true", b"false")).request_log is None


@pytest.mark.parametrize(
    ("body", "error", "named"),
    [
        ({"displayName": 5}, BadField, "displayName"),
        ({"displayName": "e", "labels": {"a": 1}}, BadField, "labels.a"),
        ({"displayName": "e", "labels": []}, BadField, "labels"),
        ({"displayName": "e", "color": "red"}, BadField, "color"),
        ({"displayName": "e", "dedicatedEndpointEnabled": "yes"}, BadField, "dedicatedEndpointEnabled"),
        ({"displayName": "e", "deployedModels": [{"id": "1"}]}, BadField, "deployed models"),
        ({"displayName": "e", "trafficSplit": {"1": 100}}, BadField, "traffic"),
        ({"displayName": "e", "clientConnectionConfig": {"inferenceTimeout": "0s"}}, BadField, "inferenceTimeout"),
        ({"displayName": "e", "clientConnectionConfig": {"inferenceTimeout": 5}}, BadField, "inferenceTimeout"),
        ({"displayName": "e", "network": "projects/1/global/networks/n"}, NotSupported, "network"),
        ({"displayName": "e", "encryptionSpec": {"kmsKeyName": "k"}}, NotSupported, "encryptionSpec"),
        ({"displayName": "e", "privateServiceConnectConfig": {"a": 1}}, NotSupported, "privateServiceConnectConfig"),
        (
            {
                "displayName": "e",
                "predictRequestResponseLoggingConfig": {
                    "enabled": True,
                    "bigqueryDestination": {"outputUri": "bq://p"},
                },
            },
            NotSupported,
            "bigqueryDestination",
        ),
        (
            {"displayName": "e", "predictRequestResponseLoggingConfig": {"enabled": True, "samplingRate": "all"}},
            BadField,
            "samplingRate",
        ),
    ],
)
def test_endpoints_that_cannot_be(body: dict[str, Any], error: type[HeadraceError], named: str) -> None:
    """A wrong field is refused by its name, and so is what would change the outcome if it were ignored."""
    with pytest.raises(error, match=named):
        read_endpoint(json.dumps(body).encode())


def test_a_mask_picks_fields() -> None:
    """Only what the mask names is changed, in either spelling; a whole endpoint in the body is no matter."""
    body = json.dumps(
        {
            "name": f"{SCOPE}/endpoints/1",
            "displayName": "new",
            "labels": {"x": "y"},
            "deployedModels": [{"id": "71", "status": {"availableReplicaCount": 1}, "headrace": {"state": "READY"}}],
            "trafficSplit": {"71": 100},
            "etag": "v7",
            "createTime": "2026-11-21T05:40:11Z",
            "dedicatedEndpointDns": "localhost:1",
            "headrace": {},
        }
    ).encode()
    update = read_endpoint_update(body, "trafficSplit")
    assert (update.changes, update.etag) == ({"split": {"71": 100}}, "v7")
    assert read_endpoint_update(body, "display_name, labels").changes == {"display_name": "new", "labels": {"x": "y"}}
    assert read_endpoint_update(b"{}", "description").changes == {"description": ""}
    assert read_endpoint_update(b"{}", "trafficSplit").changes == {"split": {}}
    assert read_endpoint_update(b"{}", "predictRequestResponseLoggingConfig").changes == {"sampling_rate": None}
    assert read_endpoint_update(b"{}", "client_connection_config").changes == {"inference_timeout_s": 0.0}


@pytest.mark.parametrize("mask", ["", " ", "name", "createTime", "deployed_models", "dedicatedEndpointEnabled", "etag"])
def test_masks_of_what_is_read_only(mask: str) -> None:
    """A mask that names nothing, or what cannot be changed, is refused, and named."""
    with pytest.raises(BadField, match=mask.strip() or "updateMask is missing"):
        read_endpoint_update(b'{"displayName": "e"}', mask)


@pytest.mark.parametrize("mask", ["colour", "displayName,colour", "labels.a", "*", ","])
def test_masks_of_what_is_unknown(mask: str) -> None:
    """A mask that names what an endpoint does not have is refused; the evidence has what can be changed."""
    with pytest.raises(BadField, match="does not have") as refused:
        read_endpoint_update(b'{"displayName": "e"}', mask)
    assert "trafficSplit" in refused.value.evidence


SHARES = st.dictionaries(st.text(alphabet="0123456789", min_size=1, max_size=4), st.integers(-50, 150), max_size=5)


@settings(deadline=None)
@given(split=SHARES, empty=st.booleans())
def test_a_split_adds_up(split: dict[str, int], empty: bool) -> None:
    """A split is read as it is if none is negative and all add up to 100 (or to nothing, where that may be)."""
    total = sum(split.values())
    good = all(share >= 0 for share in split.values()) and (total == 100 or (empty and total == 0))
    if good:
        assert read_split(split, empty=empty) == split
    else:
        with pytest.raises(BadField, match="trafficSplit"):
            read_split(split, empty=empty)


def test_deploy_model_of_the_sdk() -> None:
    """Model, version, machine, scale and split; what does not change how it is served is kept."""
    wish = read_deploy_model(json.dumps(SDK_DEPLOY).encode(), SCOPE)
    assert (wish.model_id, wish.reference, wish.display_name) == ("64", "1", "d1")
    assert wish.machine == MachineSpec(
        machine_type="n1-standard-4", accelerator_type="NVIDIA_TESLA_T4", accelerator_count=1
    )
    assert (wish.min_replicas, wish.max_replicas, wish.split) == (1, 3, {"0": 20, "71": 80})
    assert wish.settings == {"serviceAccount": "a@b", "enableAccessLogging": True}
    assert metric_specs_json(wish.autoscaling) == METRICS
    assert not wish.own


def deploy(**changes: Any) -> bytes:
    """A body with other fields in its deployed model, or beside it."""
    of_model = {"model": MODEL} | changes.pop("model_fields", {})
    return json.dumps({"deployedModel": of_model} | changes).encode()


def resources(**fields: Any) -> bytes:
    """A body with these resources."""
    return deploy(model_fields={"dedicatedResources": fields})


def test_a_little_is_enough() -> None:
    """A model alone: its default version, one replica, a machine of the platform's choice, the traffic as it is."""
    wish = read_deploy_model(deploy(), SCOPE)
    assert (wish.model_id, wish.reference, wish.machine, wish.split) == ("64", "", MachineSpec(), None)
    assert (wish.min_replicas, wish.max_replicas, wish.settings) == (1, 1, {})


def test_machine_types_come_without_accelerators() -> None:
    """The SDK's own default, a machine type alone, is taken, with an unspecified accelerator too."""
    for accelerator in ({}, {"acceleratorType": 0}, {"acceleratorType": "ACCELERATOR_TYPE_UNSPECIFIED"}):
        body = resources(machineSpec={"machineType": "n1-standard-2", **accelerator})
        assert read_deploy_model(body, SCOPE).machine == MachineSpec(machine_type="n1-standard-2")


def test_no_replica_at_least() -> None:
    """What the SDK sends of spot machines without a minimum is one replica; with a scale-to-zero time it is none."""
    wish = read_deploy_model(resources(maxReplicaCount=2, spot=True), SCOPE)
    assert (wish.min_replicas, wish.max_replicas, wish.settings) == (1, 2, {"spot": True})
    zero = {"minReplicaCount": 0, "scaleToZeroSpec": {"idleScaledownPeriod": "300s"}}
    assert read_deploy_model(resources(**zero), SCOPE).scale_to_zero_after_s == 300


def test_automatic_resources_are_scale_alone() -> None:
    """The platform picks the machine, and gives them back under their own name."""
    body = deploy(model_fields={"automaticResources": {"minReplicaCount": 2}})
    wish = read_deploy_model(body, SCOPE)
    assert (wish.min_replicas, wish.max_replicas, wish.settings) == (2, 2, {"automaticResources": True})


def test_a_deployment_of_its_own() -> None:
    """A system label has it share with nobody; another value of that label is refused."""
    assert read_deploy_model(deploy(model_fields={"systemLabels": {"headrace-deployment": "own"}}), SCOPE).own
    with pytest.raises(BadField, match="headrace-deployment"):
        read_deploy_model(deploy(model_fields={"systemLabels": {"headrace-deployment": "mine"}}), SCOPE)


@pytest.mark.parametrize(
    ("body", "error", "named"),
    [
        (b"{", BadJson, "JSON"),
        (b"{}", BadField, "deployedModel is missing"),
        (b'{"deployedModel": []}', BadField, "deployedModel"),
        (b'{"deployedModel": {}}', BadField, "deployedModel.model is missing"),
        (deploy(model_fields={"model": "64"}), BadField, "not a model's name"),
        (deploy(model_fields={"model": f"{MODEL}@"}), BadField, "not a model's name"),
        (deploy(model_fields={"model": f"{MODEL}@1@2"}), BadField, "not a model's name"),
        (deploy(model_fields={"model": "projects/other/locations/us-central1/models/64"}), BadField, "another place"),
        (deploy(trafficSplit={"0": 99}), BadField, "add up to 100"),
        (deploy(trafficSplit={"0": 0}), BadField, "add up to 100"),
        (deploy(trafficSplit={"0": 110, "1": -10}), BadField, "negative"),
        (deploy(trafficSplit={"0": "all"}), BadField, "trafficSplit.0"),
        (deploy(trafficSplit={"0": 99.5, "1": 0.5}), BadField, "trafficSplit.0"),
        (deploy(model_fields={"displayName": True}), BadField, "displayName"),
        (deploy(model_fields={"colour": "red"}), BadField, "colour"),
        (resources(minReplicaCount=-1), BadField, "minReplicaCount"),
        (resources(minReplicaCount=3, maxReplicaCount=2), BadField, "maxReplicaCount is less than minReplicaCount"),
        (resources(minReplicaCount="many"), BadField, "minReplicaCount"),
        (resources(machineSpec={"machineType": "n1-standard-4", "acceleratorType": 5}), MachineSpecIncomplete, "part"),
        (
            resources(machineSpec={"machineType": "x", "acceleratorType": "NVIDIA_TESLA_T5", "acceleratorCount": 1}),
            BadField,
            "acceleratorType",
        ),
        (resources(machineSpec={"machineType": "x", "acceleratorType": 99}), BadField, "acceleratorType"),
        (resources(autoscalingMetricSpecs=[{"target": 60}]), BadField, "no such autoscaling metric"),
        (resources(autoscalingMetricSpecs=[METRICS[0] | {"target": "high"}]), BadField, "target"),
        (resources(autoscalingMetricSpecs=[METRICS[0] | {"target": -1}]), BadField, "target"),
        (resources(autoscalingMetricSpecs=["cpu"]), BadField, "autoscalingMetricSpecs"),
        (resources(flexStart={"maxRuntimeDuration": "1s"}), NotSupported, "flexStart"),
        (deploy(model_fields={"sharedResources": "pools/1"}), NotSupported, "sharedResources"),
        (deploy(model_fields={"explanationSpec": {"parameters": {}}}), NotSupported, "explanationSpec"),
        (
            deploy(model_fields={"automaticResources": {}, "dedicatedResources": {}}),
            BadField,
            "dedicatedResources and automaticResources",
        ),
    ],
)
def test_deploys_that_cannot_be(body: bytes, error: type[HeadraceError], named: str) -> None:
    """A wrong field is refused by its name, and so is what would change the outcome if it were ignored."""
    with pytest.raises(error, match=named):
        read_deploy_model(body, SCOPE)


def mutate(mask: str, **fields: Any) -> bytes:
    """A body that changes these resources."""
    return json.dumps({"deployedModel": {"id": "71", "dedicatedResources": fields}, "updateMask": mask}).encode()


def test_mutate_changes_what_the_mask_names() -> None:
    """Numbers of replicas and metrics, in either spelling; what is not named stays."""
    both = "dedicatedResources.minReplicaCount,dedicated_resources.max_replica_count"
    wish = read_mutate(mutate(both, minReplicaCount=2, maxReplicaCount=4))
    assert (wish.deployed_model_id, wish.least, wish.most, wish.autoscaling) == ("71", 2, 4, None)
    only = read_mutate(mutate("dedicatedResources.maxReplicaCount", minReplicaCount=2, maxReplicaCount=4))
    assert (only.least, only.most) == (None, 4)
    metrics = read_mutate(mutate("dedicatedResources.autoscalingMetricSpecs", autoscalingMetricSpecs=METRICS))
    assert metric_specs_json(metrics.autoscaling) == METRICS
    gone = read_mutate(mutate("dedicatedResources.autoscalingMetricSpecs"))
    assert gone.autoscaling == Autoscaling()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"updateMask": "dedicatedResources.minReplicaCount"}', "deployedModel.id is missing"),
        (mutate("", minReplicaCount=1), "updateMask is missing"),
        (mutate("model", minReplicaCount=1), "'model', which cannot be changed"),
        (mutate("dedicatedResources.machineSpec", minReplicaCount=1), "cannot be changed"),
        (mutate("colour", minReplicaCount=1), "does not have"),
        (mutate("dedicatedResources.minReplicaCount"), "minReplicaCount must be at least 1"),
        (mutate("dedicatedResources.minReplicaCount", minReplicaCount=0), "minReplicaCount must be at least 1"),
        (mutate("dedicatedResources.maxReplicaCount", maxReplicaCount=-1), "maxReplicaCount must be at least 1"),
        (mutate("dedicatedResources.minReplicaCount", minReplicaCount="x"), "minReplicaCount"),
    ],
)
def test_mutations_that_cannot_be(body: bytes, named: str) -> None:
    """A mask that names what cannot be changed, or a number that cannot be, is refused by name."""
    with pytest.raises(BadField, match=named):
        read_mutate(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
def test_any_json(body: dict[str, object]) -> None:
    """Whatever JSON comes, each of the bodies is read, or refused with an error of ours."""
    raw = json.dumps(body).encode()
    for read in (
        read_endpoint,
        lambda raw: read_endpoint_update(raw, "displayName,trafficSplit,clientConnectionConfig"),
        lambda raw: read_deploy_model(raw, SCOPE),
        read_mutate,
    ):
        with suppress(HeadraceError):
            read(raw)


@settings(deadline=None)
@given(st.integers(1, 10**18 - 1))
def test_tags_stand_for_versions(version: int) -> None:
    """An etag of ours is read back; another text is no version of any row."""
    assert version_of(etag(version)) == version


@pytest.mark.parametrize("tag", ["", "v", "7", "AMEw9y", "v-1", "v١", "v" + "9" * 40])
def test_foreign_tags(tag: str) -> None:
    """What is none of our tags stands for no version."""
    assert version_of(tag) == 0
