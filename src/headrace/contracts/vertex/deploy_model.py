"""Bodies of ``endpoints.deployModel`` and ``endpoints.mutateDeployedModel``.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints/deployModel
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from headrace.contracts.vertex.autoscaling import read_metric_specs
from headrace.contracts.vertex.deploy import DedicatedResources, WireMachineSpec, idle_s_of, replicas_of
from headrace.contracts.vertex.endpoint_bodies import read_split
from headrace.contracts.vertex.json_bodies import parse_object, read
from headrace.contracts.vertex.machine_types import machine_spec
from headrace.contracts.vertex.models import split_version
from headrace.resources.autoscaling import Autoscaling
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField, NotSupported
from headrace.resources.names import Scope
from headrace.resources.throughput import Wish, read_throughput

OWN_DEPLOYMENT = "headrace-deployment"
"""A system label: ``own`` has a deployed model never share a deployment with another endpoint's."""

THROUGHPUT = "headrace-throughput"
"""A system label: the throughput that is sold of a deployed model, as `read_throughput` takes it."""

_MODEL = re.compile(r"(projects/[^/]+/locations/[^/]+)/models/([^/@:]+(?:@[^/@:]+)?)")
_WHERE = "deployedModel.dedicatedResources"

_MUTABLE: Mapping[str, str] = MappingProxyType(
    {
        f"{parent}.{child}": name
        for parents in (("dedicatedResources", "dedicated_resources"), ("automaticResources", "automatic_resources"))
        for parent in parents
        for child, name in (
            ("minReplicaCount", "minReplicaCount"),
            ("min_replica_count", "minReplicaCount"),
            ("maxReplicaCount", "maxReplicaCount"),
            ("max_replica_count", "maxReplicaCount"),
            ("autoscalingMetricSpecs", "autoscalingMetricSpecs"),
            ("autoscaling_metric_specs", "autoscalingMetricSpecs"),
        )
    }
)
"""What a mask may name, and which of a deployed model's numbers it means."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message of the wire."""


class AutomaticResources(_Message, frozen=True):
    """Scale alone: the platform picks the machine."""

    min_replica_count: int | None = None
    max_replica_count: int | None = None


class WireDeployedModel(_Message, frozen=True):
    """``DeployedModel``. What only the server says is taken and not looked at."""

    id: str = ""
    model: str = ""
    model_version_id: object = None
    display_name: str = ""
    create_time: object = None
    dedicated_resources: DedicatedResources | None = None
    automatic_resources: AutomaticResources | None = None
    shared_resources: str = ""
    explanation_spec: dict[str, object] | None = None
    disable_explanations: bool = False
    service_account: str = ""
    disable_container_logging: bool = False
    enable_container_logging: bool = False
    enable_access_logging: bool = False
    private_endpoints: object = None
    faster_deployment_config: dict[str, object] | None = None
    speculative_decoding_spec: dict[str, object] | None = None
    rollout_options: dict[str, object] | None = None
    gdc_connected_model: str = ""
    status: object = None
    system_labels: dict[str, str] = {}
    checkpoint_id: str = ""
    full_fine_tuned_resources: dict[str, object] | None = None
    headrace: object = None


class DeployModelBody(_Message, frozen=True):
    """``DeployModelRequest``."""

    endpoint: str = ""
    deployed_model: WireDeployedModel | None = None
    traffic_split: dict[str, int] = {}


class MutateBody(_Message, frozen=True):
    """``MutateDeployedModelRequest``."""

    endpoint: str = ""
    deployed_model: WireDeployedModel | None = None
    update_mask: str = ""


class DeployModelWish(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, in our own nouns.

    Attributes:
        reference: A version or an alias of the model; empty for the default one.
        split: None: the traffic stays as it is.
        autoscaling: By what it scales between the two numbers of replicas; None: as by default.
        settings: What is kept to be read back, in the wire's names.
        own: Whether it is to have a deployment of its own.
        provision: The throughput that is sold of it; None: none.
    """

    model_id: str
    reference: str
    deployed_model_id: str
    display_name: str
    machine: MachineSpec
    min_replicas: int
    max_replicas: int
    initial_replicas: int
    scale_to_zero_after_s: float
    autoscaling: Autoscaling | None
    split: dict[str, int] | None
    settings: dict[str, Any]
    own: bool
    provision: Wish | None = None


class MutateWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different about a deployed model; None stays.

    Attributes:
        autoscaling: By what it scales; without targets: as by default.
    """

    deployed_model_id: str
    least: int | None
    most: int | None
    autoscaling: Autoscaling | None


def read_deploy_model(body: bytes, scope: Scope) -> DeployModelWish:
    """What the body of ``:deployModel`` asks for.

    Args:
        body: The request's body.
        scope: The project and location in the request's path.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown, missing, of the wrong type, or out of its range.
        MachineSpecIncomplete: The machine's accelerator is named in part.
        NotSupported: It asks for what is not there yet, and would change what comes of it.
    """
    message = read(DeployModelBody, parse_object(body))
    model = message.deployed_model
    if model is None:
        raise BadField("deployedModel is missing.", fix="Say which model: {'deployedModel': {'model': 'projects/…'}}.")
    model_id, reference = _model(model.model, scope)
    resources = _resources(model)
    _refuse_unsupported(model, resources)
    minimum, maximum, initial = replicas_of(resources, _WHERE)
    return DeployModelWish(
        model_id=model_id,
        reference=reference,
        deployed_model_id=model.id,
        display_name=model.display_name,
        machine=_machine(resources.machine_spec),
        min_replicas=minimum,
        max_replicas=maximum,
        initial_replicas=initial,
        scale_to_zero_after_s=idle_s_of(resources, _WHERE),
        autoscaling=read_metric_specs(resources.autoscaling_metric_specs, f"{_WHERE}.autoscalingMetricSpecs"),
        split=read_split(message.traffic_split) if message.traffic_split else None,
        settings=_settings(model, resources),
        own=_own(model.system_labels),
        provision=read_throughput(label) if (label := model.system_labels.get(THROUGHPUT)) else None,
    )


def read_mutate(body: bytes) -> MutateWish:
    """What the body of ``:mutateDeployedModel`` asks for.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown, missing, of the wrong type or out of its range; the mask names what is unknown or
            cannot be changed.
    """
    message = read(MutateBody, parse_object(body))
    model = message.deployed_model
    if model is None or not model.id:
        raise BadField("deployedModel.id is missing.", fix="The endpoint's deployedModels list the ids.")
    named = (
        {_mutable(path.strip()) for path in message.update_mask.split(",")} if message.update_mask.strip() else set()
    )
    if not named:
        raise BadField(
            "updateMask is missing.", fix=f"Name what is to change: {', '.join(sorted(set(_MUTABLE.values())))}."
        )
    resources = _resources(model)
    least, most = resources.min_replica_count, resources.max_replica_count
    if "minReplicaCount" in named and (least is None or least < 1):
        raise BadField(f"{_WHERE}.minReplicaCount must be at least 1.", evidence=f"It is {least or 0}.")
    if "maxReplicaCount" in named and (most is None or most < 1):
        raise BadField(f"{_WHERE}.maxReplicaCount must be at least 1.", evidence=f"It is {most or 0}.")
    autoscaling = None
    if "autoscalingMetricSpecs" in named:
        specs = resources.autoscaling_metric_specs
        autoscaling = read_metric_specs(specs, f"{_WHERE}.autoscalingMetricSpecs") or Autoscaling()
    return MutateWish(
        deployed_model_id=model.id,
        least=least if "minReplicaCount" in named else None,
        most=most if "maxReplicaCount" in named else None,
        autoscaling=autoscaling,
    )


def _mutable(path: str) -> str:
    if path in _MUTABLE:
        return _MUTABLE[path]
    top = path.partition(".")[0]
    spellings = (*WireDeployedModel.__struct_fields__, *WireDeployedModel.__struct_encode_fields__)
    what = "cannot be changed" if top in spellings else "a deployed model does not have"
    raise BadField(
        f"updateMask names {path[:100]!r}, which {what}.",
        evidence=f"These can: {', '.join(f'dedicatedResources.{name}' for name in sorted(set(_MUTABLE.values())))}.",
        fix="For anything else deploy the model again and undeploy the old one.",
    )


def _model(name: str, scope: Scope) -> tuple[str, str]:
    """The id and the version or alias in a model's full name."""
    found = _MODEL.fullmatch(name)
    if found is None:
        raise BadField(
            "deployedModel.model is not a model's name." if name else "deployedModel.model is missing.",
            evidence=f"It is {name[:200]!r}." if name else "",
            fix=f"Give {scope}/models/ID, with @VERSION or @ALIAS behind it for another version than the default one.",
        )
    if found[1] != str(scope):
        raise BadField(
            "deployedModel.model is in another place than the endpoint.",
            evidence=f"The model is in {found[1][:200]}, the endpoint in {scope}.",
            fix="Deploy it on an endpoint there, or register it here.",
        )
    return split_version(found[2])


def _resources(model: WireDeployedModel) -> DedicatedResources:
    given = {
        "dedicatedResources": model.dedicated_resources is not None,
        "automaticResources": model.automatic_resources is not None,
        "sharedResources": bool(model.shared_resources),
    }
    named = [name for name, there in given.items() if there]
    if len(named) > 1:
        raise BadField(f"deployedModel's {' and '.join(named)} exclude each other.", fix="Give one of them.")
    automatic = model.automatic_resources
    if automatic is not None:
        return DedicatedResources(
            min_replica_count=automatic.min_replica_count, max_replica_count=automatic.max_replica_count
        )
    return model.dedicated_resources or DedicatedResources()


def _machine(wire: WireMachineSpec) -> MachineSpec:
    """A machine type may come without accelerators; whether it can, the catalogue says."""
    unspecified = wire.accelerator_type in (None, 0, "0", "ACCELERATOR_TYPE_UNSPECIFIED")
    if wire.machine_type and unspecified and not wire.accelerator_count:
        return MachineSpec(machine_type=wire.machine_type)
    return machine_spec(wire.machine_type, wire.accelerator_type, wire.accelerator_count, f"{_WHERE}.machineSpec")


def _settings(model: WireDeployedModel, resources: DedicatedResources) -> dict[str, Any]:
    """What is kept to be read back: nothing of it changes how the model is served."""
    given = {
        "automaticResources": model.automatic_resources is not None,
        "spot": resources.spot,
        "serviceAccount": model.service_account,
        "disableContainerLogging": model.disable_container_logging,
        "enableContainerLogging": model.enable_container_logging,
        "enableAccessLogging": model.enable_access_logging,
        "disableExplanations": model.disable_explanations,
        "fasterDeploymentConfig": model.faster_deployment_config,
        # A throughput is told by itself: by these settings it is seen what may share a deployment.
        "systemLabels": {name: value for name, value in model.system_labels.items() if name != THROUGHPUT},
    }
    return {name: value for name, value in given.items() if value}


def _own(labels: Mapping[str, str]) -> bool:
    wanted = labels.get(OWN_DEPLOYMENT, "")
    if wanted not in ("", "own"):
        raise BadField(
            f"deployedModel.systemLabels.{OWN_DEPLOYMENT} has no value {wanted[:60]!r}.",
            fix="Give own, or leave the label out: then a deployment that fits is shared.",
        )
    return wanted == "own"


def _refuse_unsupported(model: WireDeployedModel, resources: DedicatedResources) -> None:
    """Refuse what would change the outcome if it were ignored."""
    machine = resources.machine_spec
    asked = {
        "sharedResources": model.shared_resources,
        "explanationSpec": model.explanation_spec,
        "speculativeDecodingSpec": model.speculative_decoding_spec,
        "rolloutOptions": model.rollout_options,
        "gdcConnectedModel": model.gdc_connected_model,
        "checkpointId": model.checkpoint_id,
        "fullFineTunedResources": model.full_fine_tuned_resources,
        "dedicatedResources.flexStart": resources.flex_start,
        "dedicatedResources.machineSpec.reservationAffinity": machine.reservation_affinity,
        "dedicatedResources.machineSpec.tpuTopology": machine.tpu_topology,
        "dedicatedResources.machineSpec.gpuPartitionSize": machine.gpu_partition_size,
        "dedicatedResources.machineSpec.multihostGpuNodeCount": machine.multihost_gpu_node_count,
    }
    fixes = {
        "sharedResources": "Leave it out: endpoints that deploy one version alike share its deployment by themselves.",
        "rolloutOptions": "Deploy beside what is there, and move the traffic: `headrace rollouts start`.",
    }
    for field, value in asked.items():
        if value:
            raise NotSupported(f"deployedModel.{field} is not supported yet.", fix=fixes.get(field, "Leave it out."))
