"""The whole at a glance, and who and what one talks to."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Container, Iterable
from typing import Any

import msgspec
from fastapi import Request, Response

from headrace import __version__
from headrace.api.native.nouns import deployment_json, noun_json, reach
from headrace.api.requests import answer, context_of, principal_of
from headrace.api.viewing import hidden_from
from headrace.control.autoscaling.pending import pending_text
from headrace.control.doubt import doubt
from headrace.resources.access import EVERY_PROJECT, ROLE_PERMISSIONS, Permission
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.models import ModelVersion
from headrace.resources.nodes import Node
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction

LIVING_DEPLOYMENTS = tuple(state for state in DeploymentState if state is not DeploymentState.GONE)
LIVING_REPLICAS = tuple(state for state in ReplicaState if state is not ReplicaState.GONE)


async def status(request: Request) -> Response:
    """Endpoints, what is deployed on them, replicas, memory, the last error; and to keys of every project the nodes."""
    context, conditions = context_of(request), reach(request)
    sees_nodes = principal_of(request).may(Permission.READ, EVERY_PROJECT)

    def read(tx: Transaction) -> dict[str, Any]:
        hidden = hidden_from(tx, request, **conditions)
        living = tx.list(Deployment, state=LIVING_DEPLOYMENTS, **conditions)
        deployments = [one for one in living if (one.scope, one.id) not in hidden.deployments]
        running = tx.list(Replica, state=LIVING_REPLICAS, **conditions)
        replicas = [one for one in running if (one.scope, one.deployment_id) not in hidden.deployments]
        endpoints = [one for one in tx.list(Endpoint, **conditions) if (one.scope, one.id) not in hidden.endpoints]
        listed = _endpoints(
            endpoints, tx.list(DeployedModel, **conditions), deployments, replicas, _with_own_code(tx, deployments)
        )
        for pool in _pools(listed):
            deployment = next(one for one in deployments if one.id == pool["id"])
            pool["pending"], pool["doubt"] = pending_text(tx, deployment), doubt(tx, deployment)
        return {
            "endpoints": listed,
            "draining": [noun_json(one) for one in deployments if one.state is DeploymentState.DRAINING],
            "resident_bytes": sum(replica.resident_bytes for replica in replicas),
            "last_error": _last_error([*deployments, *replicas]),
            "nodes": [noun_json(node) for node in tx.list(Node)] if sees_nodes else [],
            "nodes_shown": sees_nodes,
        }

    return answer({"version": __version__, "at": context.clock(), **await context.read(read)})


def _pools(endpoints: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The deployments behind endpoints, each once."""
    bound = [each["deployment"] for endpoint in endpoints for each in endpoint["deployed_models"] if each["deployment"]]
    return list({pool["id"]: pool for pool in bound}.values())


def _with_own_code(tx: Transaction, deployments: Iterable[Deployment]) -> frozenset[str]:
    """The ids of those whose version lets the model's own code run."""
    versions = {
        one.id: tx.get(ModelVersion, scope=one.scope, model_id=one.model_id, version=one.model_version)
        for one in deployments
    }
    return frozenset(name for name, version in versions.items() if version and version.spec.allow_custom_code)


def _endpoints(
    endpoints: Iterable[Endpoint],
    bindings: Iterable[DeployedModel],
    deployments: Iterable[Deployment],
    replicas: Iterable[Replica],
    with_own_code: Container[str],
) -> list[dict[str, Any]]:
    by_deployment: dict[str, list[Replica]] = defaultdict(list)
    for replica in replicas:
        by_deployment[replica.deployment_id].append(replica)
    pools = {
        deployment.id: {
            **deployment_json(deployment),
            "allow_custom_code": deployment.id in with_own_code,
            "replicas": [noun_json(replica) for replica in by_deployment[deployment.id]],
            "resident_bytes": sum(replica.resident_bytes for replica in by_deployment[deployment.id]),
        }
        for deployment in deployments
    }
    deployed: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for binding in bindings:
        deployed[binding.endpoint_id].append({**noun_json(binding), "deployment": pools.get(binding.deployment_id)})
    return [{**noun_json(endpoint), "deployed_models": deployed[endpoint.id]} for endpoint in endpoints]


def _last_error(rows: Iterable[Deployment | Replica]) -> dict[str, Any] | None:
    failed = [row for row in rows if row.failure is not None]
    if not failed:
        return None
    newest = max(failed, key=lambda row: row.updated_at)
    kind = "deployment" if isinstance(newest, Deployment) else "replica"
    return {"at": newest.updated_at, "kind": kind, "id": newest.id, "failure": msgspec.to_builtins(newest.failure)}


async def nodes(request: Request) -> Response:
    """The machines that serve, as their agents last described them."""
    found = await context_of(request).read(lambda tx: tx.list(Node))
    return answer({"nodes": [noun_json(node) for node in found]})


async def runtimes(request: Request) -> Response:
    """The runtimes' environments on every node."""
    found = await context_of(request).read(lambda tx: tx.list(Node))
    return answer(
        {"runtimes": [{"node": node.id, **msgspec.to_builtins(one)} for node in found for one in node.runtimes]}
    )


async def whoami(request: Request) -> Response:
    """The key that was shown, and what it may do."""
    principal = principal_of(request)
    return answer({**msgspec.to_builtins(principal), "permissions": sorted(ROLE_PERMISSIONS[principal.role])})


async def version(_request: Request) -> Response:
    """What runs here."""
    return answer({"version": __version__, "python": platform.python_version()})
