"""The routing snapshot, built from rows: what the gateway is to know, and no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from headrace.capacity.units import share, tokens_per_s
from headrace.control.access_lists import callers_of, limits_of
from headrace.control.external.probe import external_host
from headrace.control.guarantees import holds
from headrace.control.operations import deploy_runs
from headrace.control.surplus import surplus_of
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.egress import Egress
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import Failure
from headrace.resources.external import EXTERNAL, ExternalServer, read_base_url
from headrace.resources.models import Model, ModelVersion
from headrace.resources.operations import ApiKey
from headrace.resources.rollouts import Rollout
from headrace.resources.snapshot import (
    MOST_RUNNING,
    MOST_WAITING,
    DeployedRoute,
    EndpointRoute,
    ExternalRoute,
    KeyRoute,
    ProvisionRoute,
    ReplicaRoute,
    RoutingSnapshot,
)
from headrace.resources.states import OPEN_ROLLOUT, DeploymentState, ReplicaState
from headrace.store import Transaction

_WHY_NOT_READY = {
    DeploymentState.ACCEPTED: "It was only just asked for.",
    DeploymentState.CHECKING: "Its weights are being checked.",
    DeploymentState.STAGING: "Its files are being brought to the node.",
    DeploymentState.PLACING: "It waits for a node with room.",
    DeploymentState.STARTING: "Its engine is loading.",
    DeploymentState.WARMING: "Its engine is making its first tokens.",
    DeploymentState.READY: "Its replicas are being replaced.",
    DeploymentState.ASLEEP: "It scaled to zero; a request wakes it.",
    DeploymentState.FAILED: "It failed.",
}
"""DRAINING and GONE are not routed to at all."""

_WHY_AWAY = {
    DeploymentState.ACCEPTED: "It was only just asked for.",
    DeploymentState.CHECKING: "Its external server is being asked for the model.",
    DeploymentState.WARMING: "Its external server is making its first tokens.",
    DeploymentState.FAILED: "It failed.",
}


def build_snapshot(tx: Transaction, generation: int, egress: Egress, *, gateways: int = 1) -> RoutingSnapshot:
    """Everything there is to route by. What is being taken off or deleted is left out already.

    Args:
        tx: The rows.
        generation: For it.
        egress: Where external servers may be.
        gateways: How many route by it, and share the places at each replica and in each line.
    """
    by_endpoint: dict[tuple[object, str], list[DeployedRoute]] = defaultdict(list)
    watched = {(rollout.scope, rollout.endpoint_id) for rollout in tx.list(Rollout, state=OPEN_ROLLOUT)}
    for deployed in tx.list(DeployedModel):
        deployment = tx.get(Deployment, scope=deployed.scope, id=deployed.deployment_id)
        if deployment is not None and deployment.state in _WHY_NOT_READY:
            found = (deployed.scope, deployed.endpoint_id) in watched
            by_endpoint[deployed.scope, deployed.endpoint_id].append(
                _route(tx, deployed, deployment, egress, watched=found, gateways=gateways)
            )
    good_keys = tx.list(ApiKey, revoked_at=None)
    endpoints = tuple(
        EndpointRoute(
            scope=endpoint.scope,
            id=endpoint.id,
            display_name=endpoint.display_name,
            deployed=tuple(by_endpoint[endpoint.scope, endpoint.id]),
            request_log=endpoint.request_log,
            inference_timeout_s=endpoint.inference_timeout_s,
            limits=limits_of(endpoint, good_keys),
            callers=callers_of(endpoint),
        )
        for endpoint in tx.list(Endpoint, deleting=False)
    )
    keys = tuple(
        KeyRoute(secret_hash=key.secret_hash, principal=key.principal, limits=key.limits, public_key=key.public_key)
        for key in good_keys
    )
    return RoutingSnapshot(generation=generation, endpoints=endpoints, keys=keys)


def routed_replicas(snapshot: RoutingSnapshot) -> frozenset[str]:
    """The replicas that a snapshot lets the gateway send to."""
    return frozenset(
        replica.id for endpoint in snapshot.endpoints for deployed in endpoint.deployed for replica in deployed.replicas
    )


def routed_models(snapshot: RoutingSnapshot) -> frozenset[str]:
    """The deployed models that a snapshot lets the gateway route to."""
    return frozenset(deployed.id for endpoint in snapshot.endpoints for deployed in endpoint.deployed)


def served_name(deployment: Deployment) -> str:
    """The model name that a deployment's engines answer to. It never changes while they run."""
    return deployment.display_name or deployment.model_id


def _route(
    tx: Transaction,
    deployed: DeployedModel,
    deployment: Deployment,
    egress: Egress,
    *,
    watched: bool,
    gateways: int,
) -> DeployedRoute:
    scope = deployed.scope
    model = tx.get(Model, scope=scope, id=deployment.model_id)
    version = tx.get(ModelVersion, scope=scope, model_id=deployment.model_id, version=deployment.model_version)
    assert model is not None, "a model in use is not deleted"
    assert version is not None, "nor is its version"
    ready = _ready(tx, deployment)
    server = version.spec.external
    failed = deployment.state is DeploymentState.FAILED
    replicas = tuple(
        _external_route(replica, server, egress)
        if server is not None
        else ReplicaRoute(id=replica.id, epoch=replica.epoch, address=replica.address, nonce=replica.nonce)
        for replica in ready
        if replica.address and replica.failure is None  # one that lives and does not answer has a failure
    )
    first = deploy_runs(tx, deployment)
    return DeployedRoute(
        id=deployed.id,
        deployment_id=deployment.id,
        traffic=deployed.traffic,
        model=model.name,
        model_version=version.version,
        model_display_name=model.display_name,
        model_user_id=version.user_id,
        served_name=server.model if server is not None else served_name(deployment),
        max_model_len=deployment.max_model_len,
        created_at=deployed.created_at,
        max_running=max(MOST_RUNNING // gateways, 1),
        max_waiting=max(MOST_WAITING // gateways, 1),
        wakes=bool(deployment.scale_to_zero_after_s) and not failed and not first,
        returns=not replicas and server is None and not failed and not first,
        pending=not replicas and first,
        failure=deployment.failure if failed else None,
        why_not_ready="" if replicas else _why_not_ready(deployment, [one.failure for one in ready if one.failure]),
        external_host=external_host(server) if server is not None else "",
        watched=watched,
        provision=_provision(tx, deployed, deployment),
        replicas=replicas,
    )


def _provision(tx: Transaction, deployed: DeployedModel, deployment: Deployment) -> ProvisionRoute | None:
    """What it was sold, in full replicas; nothing of it is guaranteed before the replicas for it are there."""
    sold, carried = deployed.provision, deployment.carried
    if sold is None or carried is None or not tokens_per_s(carried):
        return None
    least = sold.min_tokens_per_s if holds(tx, deployment, deployed) else 0
    return ProvisionRoute(carried=carried, guaranteed=share(carried, least), most=share(carried, sold.max_tokens_per_s))


def _external_route(replica: Replica, server: ExternalServer, egress: Egress) -> ReplicaRoute:
    url = read_base_url(server.base_url)
    external = ExternalRoute(
        base_path=url.path, networks=egress.networks_for(anywhere=server.anywhere), ca_file=egress.ca_file
    )
    return ReplicaRoute(id=replica.id, epoch=replica.epoch, address=url.origin, nonce=replica.nonce, external=external)


def _ready(tx: Transaction, deployment: Deployment) -> list[Replica]:
    if deployment.state in {DeploymentState.FAILED, DeploymentState.ASLEEP}:
        return []
    ready = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=ReplicaState.READY)
    too_many = {one.id for one in surplus_of(tx, deployment)}
    return [one for one in ready if one.id not in too_many]


def _why_not_ready(deployment: Deployment, of_replicas: Sequence[Failure]) -> str:
    if deployment.runtime == EXTERNAL:
        sentence = _WHY_AWAY.get(deployment.state, "Its external server is away.")
    else:
        sentence = "Its engine lives and does not answer." if of_replicas else _WHY_NOT_READY[deployment.state]
    failure = of_replicas[0] if of_replicas else deployment.failure
    return sentence if failure is None else f"{sentence} {failure.code}: {failure.message}"
