"""``POST /V/projects/P/locations/L:deploy``: what a body asks for."""

from __future__ import annotations

import msgspec

from headrace.contracts.vertex.autoscaling import AutoscalingMetricSpec, read_metric_specs
from headrace.contracts.vertex.containers import ContainerSpec, check_deployment_timeout
from headrace.contracts.vertex.json_bodies import Duration, duration_s, parse_object, read
from headrace.contracts.vertex.machine_types import machine_spec
from headrace.resources.autoscaling import Autoscaling
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField, NotSupported
from headrace.resources.models import ServingSpec
from headrace.resources.names import Scope, check_id

_RESOURCES = "deployConfig.dedicatedResources"
IDLE_S = 3600.0
"""How long nobody asked of what may have no replica, where that is not said: Vertex AI's default."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message of the wire."""


class CustomModel(_Message, frozen=True):
    """Weights in the Hugging Face format, and where they are."""

    gcs_uri: str = ""


class ModelConfig(_Message, frozen=True):
    """The model that is registered. The EULA and the Hub's token concern published models alone."""

    accept_eula: bool = False
    hugging_face_access_token: str = ""
    hugging_face_cache_enabled: bool = False
    model_display_name: str = ""
    container_spec: ContainerSpec | None = None
    model_user_id: str = ""


class EndpointConfig(_Message, frozen=True):
    """The endpoint that is made."""

    endpoint_display_name: str = ""
    dedicated_endpoint_enabled: bool | None = None
    dedicated_endpoint_disabled: bool = False
    private_service_connect_config: dict[str, object] | None = None
    endpoint_user_id: str = ""


class WireMachineSpec(_Message, frozen=True):
    """The machine of one replica."""

    machine_type: str = ""
    accelerator_type: object = None
    accelerator_count: int = 0
    gpu_partition_size: str = ""
    tpu_topology: str = ""
    multihost_gpu_node_count: int = 0
    reservation_affinity: dict[str, object] | None = None
    min_gpu_driver_version: str = ""


class ScaleToZeroSpec(_Message, frozen=True):
    """When nothing of the model runs. After each start our idle time is counted anew, so it holds both."""

    min_scaleup_period: Duration | None = None
    idle_scaledown_period: Duration | None = None


class DedicatedResources(_Message, frozen=True):
    """Machine and scale. ``spot`` is a price, and so means nothing here."""

    machine_spec: WireMachineSpec = WireMachineSpec()
    min_replica_count: int | None = None
    max_replica_count: int | None = None
    required_replica_count: int = 0
    initial_replica_count: int = 0
    autoscaling_metric_specs: tuple[AutoscalingMetricSpec, ...] = ()
    spot: bool = False
    flex_start: dict[str, object] | None = None
    scale_to_zero_spec: ScaleToZeroSpec | None = None


class DeployConfig(_Message, frozen=True):
    """How the model runs."""

    dedicated_resources: DedicatedResources = DedicatedResources()
    fast_tryout_enabled: bool = False
    system_labels: dict[str, str] = {}


class DeployBody(_Message, frozen=True):
    """The whole body, as in google-cloud-aiplatform 2.7.0's ``v1beta1.DeployRequest``."""

    publisher_model_name: str = ""
    hugging_face_model_id: str = ""
    custom_model: CustomModel | None = None
    destination: str = ""
    model_config: ModelConfig = ModelConfig()
    endpoint_config: EndpointConfig = EndpointConfig()
    deploy_config: DeployConfig = DeployConfig()


class PublishedWish(msgspec.Struct, frozen=True, kw_only=True):
    """A published model that is to be deployed, by one of its two names.

    Attributes:
        publisher_model: Model Garden's name, ``publishers/P/models/M@V``; or empty.
        hub_model: The Hugging Face Hub's, ``OWNER/NAME``; or empty.
        accepts_eula: The caller accepts the model's licence.
        hub_token: What the Hub is to be shown; may be empty.
    """

    publisher_model: str = ""
    hub_model: str = ""
    accepts_eula: bool = False
    hub_token: str = ""

    def __repr__(self) -> str:
        return f"PublishedWish({self.publisher_model or self.hub_model!r})"  # never the token


class DeployWish(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, in our own nouns.

    Attributes:
        artifact_uri: Where the weights are; empty for a published model.
        published: The published model; None for weights at an address.
        model_id: The model's identifier; empty to have one made.
        model_user_id: The same as the caller gave it; callers name the model by it in chats.
        endpoint_id: The endpoint's identifier; empty to have one made.
        initial_replicas: With how many it begins; 0: with the fewest.
        scale_to_zero_after_s: How long nobody must have asked before no replica runs; 0: never.
        autoscaling: By what it scales between the two numbers of replicas; None: as by default.
        timeout_s: How long it may take to become ready; None for the platform's own limit.
    """

    scope: Scope
    artifact_uri: str
    published: PublishedWish | None = None
    model_id: str
    model_user_id: str
    model_display_name: str
    endpoint_id: str
    endpoint_display_name: str
    machine: MachineSpec
    min_replicas: int
    max_replicas: int
    initial_replicas: int
    scale_to_zero_after_s: float
    autoscaling: Autoscaling | None
    spec: ServingSpec
    dedicated: bool
    timeout_s: float | None


def read_deploy(body: bytes, scope: Scope, *, endpoint_id: str = "") -> DeployWish:
    """What a ``:deploy`` body asks for.

    Args:
        body: The request's body: camelCase or snake_case, and trailing commas are forgiven.
        scope: The project and location in the request's path.
        endpoint_id: The query's ``endpointId``, which the vendor's API takes in place of ``endpointUserId``.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown, of the wrong type, or out of its range.
        BadName: An identifier is not well formed.
        MachineSpecIncomplete: Only some of the machine's three fields are there.
        NotSupported: It asks for what is not there yet.
    """
    message = read(DeployBody, parse_object(body, trailing_commas=True))
    artifact_uri, published = _source(message)
    if message.destination and message.destination != str(scope):
        raise BadField(
            "destination is not the location in the path.",
            evidence=f"The body says {message.destination[:200]!r}, the path {str(scope)!r}.",
            fix="Leave destination out of the body, or make the two the same.",
        )
    model, endpoint = message.model_config, message.endpoint_config
    resources = message.deploy_config.dedicated_resources
    _refuse_unsupported(endpoint, resources)
    minimum, maximum, initial = replicas_of(resources, _RESOURCES)
    container = model.container_spec
    if container:
        check_deployment_timeout(container, "modelConfig.containerSpec")
    wire_machine = resources.machine_spec
    return DeployWish(
        scope=scope,
        artifact_uri=artifact_uri,
        published=published,
        model_id=_identifier(model.model_user_id, "modelConfig.modelUserId"),
        model_user_id=model.model_user_id,
        model_display_name=model.model_display_name,
        endpoint_id=_identifier(endpoint.endpoint_user_id or endpoint_id, "endpointConfig.endpointUserId"),
        endpoint_display_name=endpoint.endpoint_display_name,
        machine=machine_spec(
            wire_machine.machine_type,
            wire_machine.accelerator_type,
            wire_machine.accelerator_count,
            f"{_RESOURCES}.machineSpec",
        ),
        min_replicas=minimum,
        max_replicas=maximum,
        initial_replicas=initial,
        scale_to_zero_after_s=idle_s_of(resources, _RESOURCES),
        autoscaling=read_metric_specs(
            resources.autoscaling_metric_specs, "deployConfig.dedicatedResources.autoscalingMetricSpecs"
        ),
        spec=ServingSpec(container=container.json() if container else None),
        dedicated=not endpoint.dedicated_endpoint_disabled and endpoint.dedicated_endpoint_enabled is not False,
        timeout_s=container.deployment_timeout_s if container else None,
    )


def _source(message: DeployBody) -> tuple[str, PublishedWish | None]:
    """An address, or a published model."""
    sources = {
        "customModel": message.custom_model is not None,
        "publisherModelName": bool(message.publisher_model_name.strip()),
        "huggingFaceModelId": bool(message.hugging_face_model_id.strip()),
    }
    given = [name for name, there in sources.items() if there]
    if len(given) > 1:
        raise BadField(f"{' and '.join(given)} exclude each other.", fix="Give one of them.")
    if message.custom_model is None:
        if not given:
            raise BadField(
                "customModel is missing.",
                evidence="Neither publisherModelName nor huggingFaceModelId is there, either.",
                fix='Say where the weights are: {"customModel": {"gcsUri": "…"}}.',
            )
        return "", _published(message)
    if not message.custom_model.gcs_uri.strip():
        raise BadField(
            "customModel.gcsUri is missing.", fix="Give gs://BUCKET/FOLDER, file:///FOLDER or an absolute path."
        )
    return message.custom_model.gcs_uri.strip(), None


def _published(message: DeployBody) -> PublishedWish:
    return PublishedWish(
        publisher_model=message.publisher_model_name.strip(),
        hub_model=message.hugging_face_model_id.strip(),
        accepts_eula=message.model_config.accept_eula,
        hub_token=message.model_config.hugging_face_access_token.strip(),
    )


def _identifier(value: str, field: str) -> str:
    return check_id(value, field=field) if value else ""


def replicas_of(resources: DedicatedResources, where: str) -> tuple[int, int, int]:
    """How many replicas run, how many ever may, and with how many it begins; 0: not said.

    Args:
        resources: What the body says.
        where: The field that holds it, for messages.

    Raises:
        BadField: There cannot be so many.
    """
    minimum = 1 if resources.min_replica_count is None else resources.min_replica_count
    if minimum < 0:
        raise BadField(f"{where}.minReplicaCount must be at least 0.", evidence=f"It is {minimum}.")
    minimum = minimum or 1  # while it does not sleep
    maximum = minimum if resources.max_replica_count is None else resources.max_replica_count
    if maximum < minimum:
        raise BadField(f"{where}.maxReplicaCount is less than minReplicaCount.", evidence=f"{maximum} < {minimum}.")
    initial = resources.initial_replica_count
    if initial and not minimum <= initial <= maximum:
        raise BadField(
            f"{where}.initialReplicaCount is from minReplicaCount to maxReplicaCount.",
            evidence=f"It is {initial}; they are {minimum} and {maximum}.",
        )
    return minimum, maximum, initial


def idle_s_of(resources: DedicatedResources, where: str) -> float:
    """How long nobody must have asked before no replica runs; 0: never.

    Args:
        resources: What the body says.
        where: The field that holds it, for messages.

    Raises:
        BadField: It makes no sense.
        NotSupported: The two periods of it differ in a way that is not kept.
    """
    spec = resources.scale_to_zero_spec
    if spec is None:
        return IDLE_S if resources.min_replica_count == 0 else 0.0
    if resources.min_replica_count not in (None, 0):
        raise BadField(
            f"{where}.scaleToZeroSpec goes with a minReplicaCount of 0.",
            evidence=f"It is {resources.min_replica_count}.",
            fix="Give 0, or leave scaleToZeroSpec out.",
        )
    periods = [duration_s(each) for each in (spec.idle_scaledown_period, spec.min_scaleup_period) if each is not None]
    if spec.idle_scaledown_period is None or min(periods) <= 0:
        raise BadField(
            f"{where}.scaleToZeroSpec.idleScaledownPeriod must say for how long nobody asked.",
            fix="Give it, such as 300s.",
        )
    if max(periods) > periods[0]:
        raise NotSupported(
            f"{where}.scaleToZeroSpec.minScaleupPeriod is not supported beyond idleScaledownPeriod.",
            evidence=f"{max(periods):g} s is more than {periods[0]:g} s.",
            fix="Give an idleScaledownPeriod of that length.",
        )
    return periods[0]


def _refuse_unsupported(endpoint: EndpointConfig, resources: DedicatedResources) -> None:
    """Refuse what would change the outcome if it were ignored."""
    machine = resources.machine_spec
    asked = {
        "endpointConfig.privateServiceConnectConfig": endpoint.private_service_connect_config,
        "deployConfig.dedicatedResources.flexStart": resources.flex_start,
        "deployConfig.dedicatedResources.machineSpec.reservationAffinity": machine.reservation_affinity,
        "deployConfig.dedicatedResources.machineSpec.tpuTopology": machine.tpu_topology,
        "deployConfig.dedicatedResources.machineSpec.gpuPartitionSize": machine.gpu_partition_size,
        "deployConfig.dedicatedResources.machineSpec.multihostGpuNodeCount": machine.multihost_gpu_node_count,
    }
    for field, value in asked.items():
        if value:
            raise NotSupported(f"{field} is not supported yet.", fix="Leave it out.")
