"""Deploy: register the artifacts as a model version, and bind a pool of its replicas to an endpoint."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import msgspec

from headrace.control.commands.pool import PoolWish, check_deadline, new_pool
from headrace.control.commands.provision import check_scale, follow_newest, sell_if
from headrace.control.commands.quota import require_quota
from headrace.control.commands.register import register_version
from headrace.control.commands.scale import check_idle_s, check_replicas
from headrace.control.commands.spec import check_spec
from headrace.control.commands.texts import as_text, check_address, check_labels, check_text
from headrace.control.rollouts.life import require_no_rollout
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.egress import EVERYWHERE, literal, permitted
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import BadField, EndpointNotFound
from headrace.resources.external import EXTERNAL, MAX_MODEL_CHARACTERS, ExternalServer, check_key, read_base_url
from headrace.resources.models import Model, ModelVersion, ServingSpec
from headrace.resources.names import check_id, check_model_id, new_id
from headrace.resources.operations import Operation
from headrace.resources.throughput import Wish
from headrace.store import Transaction


class DeployRequest(PoolWish, kw_only=True, frozen=True):
    """What is to be served, and where.

    Attributes:
        contract: The API it was asked through, e.g. ``vertex/v1beta1``.
        model_id: Id of the model to make, or of the one to add a version to; empty: made up.
        model_user_id: The importer's own name for the model.
        publisher_model: Its name in Model Garden, where it is a published one; told in the operation's answer.
        endpoint_id: Id of the endpoint to make, or of the one to add to; empty: made up.
        labels: Of the model and of the endpoint, where they are made.
        external_key: The key of the spec's external server; empty for none. Goes into its replica's row alone.
        provision: As in `VersionRequest`.
        no_traffic: It gets none of the endpoint's traffic until somebody says so.
    """

    artifact_uri: str
    contract: str
    model_id: str = ""
    model_display_name: str = ""
    model_user_id: str = ""
    publisher_model: str = ""
    endpoint_id: str = ""
    endpoint_display_name: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    spec: ServingSpec = ServingSpec()
    external_key: str = ""
    dedicated: bool = True
    provision: Wish | None = None
    no_traffic: bool = False

    @property
    def title(self) -> str:
        """What to call the model where nobody said."""
        source = self.spec.external.model if self.spec.external else self.artifact_uri
        return self.model_display_name or self.model_user_id or as_text(PurePosixPath(source).name) or "model"

    def __repr__(self) -> str:
        return f"DeployRequest({self.scope}, {self.artifact_uri!r})"  # never the key


def deploy(tx: Transaction, request: DeployRequest, *, now: float, data_dir: Path | None = None) -> Operation:
    """Store the wish: model version, endpoint, deployment, deployed model and the operation, all or nothing.

    The same artifacts deployed twice make two models, as Vertex AI does. On an endpoint that serves already, the new
    deployed model takes all traffic once it is READY, unless it is to have none; until then others keep theirs.

    Args:
        tx: An open transaction, in which the project's quota is counted too.
        request: The wish.
        now: Unix seconds.
        data_dir: Where an operator's own machine types may be; None for the catalogue's alone.

    Raises:
        BadField: The request has no artifacts, a text of it is too long or not printable, or its numbers of replicas
            or its deadline make no sense; or its external server has no base URL, model or key that can be one; or
            there is no such machine type, or it does not have these accelerators; or its throughput is none (`sell`).
        NotOptimizable: No throughput of it can be stated.
        ThroughputTooHigh: The machine could never carry it.
        ExternalAddressForbidden: No external server may be at that address, whoever asks.
        BadName: An identifier is not well formed.
        MachineSpecIncomplete: The machine is named in part.
        EndpointNotFound: The endpoint is being deleted.
        RolloutRunning: It is to take the endpoint's traffic, on which a rollout decides.
        QuotaExceeded: The project has no room for another deployment of this size.
    """
    _check(request)
    require_quota(tx, request.scope.project, request.machine, data_dir)
    version = _register(tx, request, now)
    carried, sold = sell_if(tx, version, request.machine, request.provision, data_dir=data_dir)
    endpoint = _open_endpoint(tx, request, now)
    title, runtime = request.model_user_id or request.title, EXTERNAL if request.spec.external else ""
    deployment = new_pool(request, version, display_name=title, now=now, runtime=runtime)
    if not request.no_traffic:
        require_no_rollout(tx, request.scope, endpoint.id)
    serves_already = tx.list(DeployedModel, scope=request.scope, endpoint_id=endpoint.id, limit=1)
    deployed = DeployedModel(
        scope=request.scope,
        id=new_id(),
        endpoint_id=endpoint.id,
        deployment_id=deployment.id,
        display_name=request.title,
        traffic=0 if serves_already or request.no_traffic else 100,
        provision=sold,
        created_at=now,
    )
    operation = Operation(
        scope=request.scope,
        id=new_id(),
        parent=str(request.scope),
        kind="deploy",
        contract=request.contract,
        targets={
            "endpoint": endpoint.id,
            "model": version.model_id,
            "version": version.version,
            "deployment": deployment.id,
            "deployed_model": deployed.id,
        }
        | ({"traffic": "none"} if request.no_traffic else {})
        | ({"publisher_model": request.publisher_model} if request.publisher_model else {})
        | ({} if sold is None else {"until": repr(now + request.timeout_s)}),
        created_at=now,
        updated_at=now,
    )
    for row in (deployment, deployed, operation):
        tx.insert(row)
    if carried is not None:
        follow_newest(tx, deployment, carried)
    if request.spec.external is not None:
        tx.insert(_external_replica(request, request.spec.external, deployment))
    return operation


def _external_replica(request: DeployRequest, server: ExternalServer, deployment: Deployment) -> Replica:
    """An external server is its deployment's one replica from the beginning."""
    return Replica(
        scope=request.scope,
        id=new_id(),
        deployment_id=deployment.id,
        node_id="",
        epoch=1,
        nonce=request.external_key,
        address=server.base_url,
        created_at=deployment.created_at,
        updated_at=deployment.updated_at,
    )


def _check(request: DeployRequest) -> None:
    check_address(request.artifact_uri)
    if request.spec.external is not None:
        _check_external(request, request.spec.external)
    check_spec(request.spec)
    check_labels(request.labels)
    machine = request.machine
    for what, text in {
        "The model's display name": request.model_display_name,
        "The model's id": request.model_user_id,
        "The endpoint's display name": request.endpoint_display_name,
        "The machine type": machine.machine_type,
        "The accelerator type": machine.accelerator_type,
    }.items():
        check_text(what, text)
    check_replicas(request.min_replicas, request.max_replicas, first=request.initial_replicas)
    check_scale(request.provision, request.min_replicas, request.max_replicas)
    check_idle_s(request.scale_to_zero_after_s, external=request.spec.external is not None)
    check_deadline(request.timeout_s)


def _check_external(request: DeployRequest, server: ExternalServer) -> None:
    """What can be known without a call: where a name leads is seen at every connection."""
    url = read_base_url(server.base_url)
    check_key(request.external_key)
    if address := literal(url.host):
        permitted([address], EVERYWHERE, host=url.host)
    if not server.model.strip() or len(server.model) > MAX_MODEL_CHARACTERS or not server.model.isprintable():
        raise BadField(
            "The external server's model needs a name.",
            evidence=f"It is {server.model[:60]!r}.",
            fix="Give the name under which the server's /models lists it.",
        )
    if request.max_replicas != 1 or request.autoscaling is not None:
        raise BadField(
            "An external server is one replica.",
            evidence=f"max_replicas is {request.max_replicas}.",
            fix="Deploy further servers to the same endpoint, each as a deployment of its own.",
        )


def _register(tx: Transaction, request: DeployRequest, now: float) -> ModelVersion:
    """A new model with version 1, or the next version of the model that was named."""
    model_id = check_model_id(request.model_id, field="model_id") if request.model_id else new_id()
    model = tx.get(Model, scope=request.scope, id=model_id) or Model(
        scope=request.scope,
        id=model_id,
        display_name=request.title,
        labels=request.labels,
        created_at=now,
        updated_at=now,
    )
    version = ModelVersion(
        scope=request.scope,
        model_id=model_id,
        version="",
        artifact_uri=request.artifact_uri,
        spec=request.spec,
        user_id=request.model_user_id,
        created_at=now,
    )
    return register_version(tx, model, version)


def _open_endpoint(tx: Transaction, request: DeployRequest, now: float) -> Endpoint:
    endpoint_id = check_id(request.endpoint_id, field="endpoint_id") if request.endpoint_id else new_id()
    endpoint = tx.get(Endpoint, scope=request.scope, id=endpoint_id)
    if endpoint is not None:
        if endpoint.deleting:
            raise EndpointNotFound(f"Endpoint {endpoint_id!r} is being deleted.", fix="Use another endpoint.")
        return endpoint
    endpoint = Endpoint(
        scope=request.scope,
        id=endpoint_id,
        display_name=request.endpoint_display_name or request.title,
        labels=request.labels,
        dedicated=request.dedicated,
        created_at=now,
        updated_at=now,
    )
    tx.insert(endpoint)
    return endpoint
