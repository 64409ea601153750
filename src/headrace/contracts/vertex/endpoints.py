"""Endpoints and deployed models as Vertex AI's JSON, and the bodies that change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.contracts.vertex.autoscaling import metric_specs_json
from headrace.contracts.vertex.endpoint_bodies import read_split
from headrace.contracts.vertex.json_bodies import duration, parse_object, read
from headrace.contracts.vertex.machine_types import machine_spec_json
from headrace.contracts.vertex.timestamps import etag, rfc3339
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import BadField

_OF_RESOURCES = ("spot",)
"""Settings that stand below the machine in the wire."""


class Bound(msgspec.Struct, frozen=True):
    """One deployed model of an endpoint, with the pool that it leads to.

    Attributes:
        ready: Replicas of the pool that take traffic now.
        shared_with: Names of other endpoints that the pool serves, too.
    """

    binding: DeployedModel
    deployment: Deployment
    ready: int
    shared_with: tuple[str, ...] = ()


class UndeployBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``UndeployModelRequest``."""

    endpoint: str = ""
    deployed_model_id: str = ""
    traffic_split: dict[str, int] = {}


def read_undeploy(body: bytes) -> tuple[str, dict[str, int] | None]:
    """The deployed model that is to go, and the traffic of those that stay (None: it does not say).

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown, missing, or of the wrong type or value.
    """
    message = read(UndeployBody, parse_object(body))
    if not message.deployed_model_id:
        raise BadField("deployedModelId is missing.", fix="The endpoint's deployedModels list the ids.")
    split = read_split(message.traffic_split, empty=True)
    return message.deployed_model_id, split if any(split.values()) else None


def endpoint_json(endpoint: Endpoint, bound: Sequence[Bound], *, host: str) -> dict[str, Any]:
    """An ``Endpoint``, with our own facts in ``headrace`` (clients ignore fields they do not know here).

    Args:
        endpoint: The endpoint.
        bound: What is deployed on it.
        host: Host and port that dedicated endpoints are reached by with TLS, since requests are routed by path. Empty
            where there is no TLS: then none is shown as dedicated, for the vendor's SDK would ask it by ``https://``.
    """
    dedicated = endpoint.dedicated and bool(host)
    wire: dict[str, Any] = {
        "name": endpoint.name,
        "displayName": endpoint.display_name,
        "deployedModels": [deployed_model_json(one) for one in bound],
        # All of them: by its keys the vendor's SDK knows what `undeploy_all` is to undeploy.
        "trafficSplit": {one.binding.id: one.binding.traffic for one in bound},
        "etag": etag(endpoint.resource_version),
        "labels": endpoint.labels,
        "createTime": rfc3339(endpoint.created_at),
        "updateTime": rfc3339(endpoint.updated_at),
        "dedicatedEndpointEnabled": dedicated,
    }
    if dedicated:
        wire["dedicatedEndpointDns"] = host
    if endpoint.description:
        wire["description"] = endpoint.description
    if endpoint.inference_timeout_s:
        wire["clientConnectionConfig"] = {"inferenceTimeout": duration(endpoint.inference_timeout_s)}
    ours: dict[str, Any] = {"deleting": True} if endpoint.deleting else {}
    if endpoint.request_log is not None:
        log = endpoint.request_log
        wire["predictRequestResponseLoggingConfig"] = {"enabled": True, "samplingRate": log.sampling_rate}
        ours["requestLog"] = {
            "samplingRate": log.sampling_rate,
            "redactFields": log.redact_fields,
            "redactPatterns": log.redact_patterns,
        }
    return wire | {"headrace": ours} if ours else wire


def plain_endpoint_json(endpoint: Endpoint, bound: Sequence[Bound], *, host: str) -> dict[str, Any]:
    """As `endpoint_json`, for the response of the operation that made or changed it.

    The vendor's SDK goes on with that response as if it had asked for the endpoint, and refuses fields that it does not
    know there: of what is deployed it has those that each version of its message has.
    """
    wire = endpoint_json(endpoint, bound, host=host)
    known = ("id", "model", "modelVersionId", "displayName", "createTime")
    plain = [{name: one[name] for name in known} for one in wire["deployedModels"]]
    return {name: value for name, value in wire.items() if name != "headrace"} | {"deployedModels": plain}


def deployed_model_json(bound: Bound) -> dict[str, Any]:
    """A ``DeployedModel``. ``status`` says how many replicas take traffic, and what keeps the others from it."""
    binding, deployment = bound.binding, bound.deployment
    idle_s = deployment.scale_to_zero_after_s
    resources: dict[str, Any] = {
        "minReplicaCount": 0 if idle_s else deployment.min_replicas,
        "maxReplicaCount": deployment.max_replicas,
    }
    if deployment.initial_replicas:
        resources["initialReplicaCount"] = deployment.initial_replicas
    if idle_s:
        resources["scaleToZeroSpec"] = {"idleScaledownPeriod": duration(idle_s)}
    settings = dict(binding.settings)
    automatic = settings.pop("automaticResources", False)
    resources |= {name: settings.pop(name) for name in _OF_RESOURCES if name in settings}
    if specs := metric_specs_json(deployment.autoscaling):
        resources["autoscalingMetricSpecs"] = specs
    machine = machine_spec_json(deployment.machine)
    if machine:
        resources = {"machineSpec": machine, **resources}
    status: dict[str, Any] = {
        "availableReplicaCount": bound.ready,
        "lastUpdateTime": rfc3339(deployment.updated_at),
    }
    ours: dict[str, Any] = {"deployment": deployment.name, "state": deployment.state.value}
    if bound.shared_with:
        ours["sharedWith"] = list(bound.shared_with)
    if (sold := binding.provision) is not None:
        ours["throughput"] = {
            "minTokensPerS": sold.min_tokens_per_s,
            "maxTokensPerS": sold.max_tokens_per_s,
            "chunk": sold.chunk,
        }
    if deployment.failure is not None:
        status["message"] = deployment.failure.message
        ours["failure"] = msgspec.to_builtins(deployment.failure)
    elif deployment.scaling is not None and deployment.scaling.pending:
        status["message"] = deployment.scaling.pending
    return {
        "id": binding.id,
        "model": deployment.scope.name("models", deployment.model_id),
        "modelVersionId": deployment.model_version,
        "displayName": binding.display_name,
        "createTime": rfc3339(binding.created_at),
        "automaticResources" if automatic else "dedicatedResources": resources,
        **settings,
        "status": status,
        "headrace": ours,
    }
