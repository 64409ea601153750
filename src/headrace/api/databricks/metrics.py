"""What is measured of a serving endpoint, and how it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from headrace.api.access import Route
from headrace.api.databricks.found import named, served_name
from headrace.api.description import Description
from headrace.api.requests import Counting, answer, context_of
from headrace.contracts.databricks.metrics import EndpointFacts, ProvisionMetrics, ReplicaMetrics, endpoint_metrics
from headrace.contracts.databricks.openapi import endpoint_openapi
from headrace.contracts.databricks.paths import SERVING
from headrace.control import GatewayAway
from headrace.resources.access import Permission
from headrace.resources.deployments import Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import NotSupported
from headrace.resources.nodes import Node
from headrace.resources.states import ReplicaState
from headrace.store import Transaction

_METRICS = f"{SERVING}/{{name}}/metrics"
_OPENAPI = f"{SERVING}/{{name}}/openapi"
_EXTERNAL_FUNCTION = "/api/2.0/external-function"


class _Seen(msgspec.Struct, frozen=True):
    endpoint: Endpoint
    served: list[DeployedModel]
    replicas: list[Replica]
    memory_bytes: dict[str, int]


async def get_metrics(request: Request) -> Response:
    """What was counted of the endpoint's requests, and what is known of its replicas, as Prometheus reads it.

    A gateway that does not answer is left out.
    """
    context = context_of(request)

    def read(tx: Transaction) -> _Seen:
        endpoint = named(tx, request, "CAN_VIEW")
        served = tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id)
        pools = tuple({one.deployment_id for one in served})
        found = tx.list(Replica, scope=endpoint.scope, deployment_id=pools) if pools else []
        replicas = [one for one in found if one.state is not ReplicaState.GONE]
        return _Seen(endpoint, served, replicas, {node.id: node.memory_bytes for node in tx.list(Node)})

    seen = await context.read(read)
    told = await asyncio.gather(*(_told(gateway) for gateway in context.gateways))
    names = {one.deployment_id: served_name(seen.endpoint, one) for one in seen.served}
    facts = EndpointFacts(
        name=request.path_params["name"],
        endpoint_id=seen.endpoint.id,
        deployments=frozenset(names),
        replicas=[_replica(one, names, seen.memory_bytes) for one in seen.replicas],
        provisions=[
            ProvisionMetrics(names[one.deployment_id], one.provision.min_tokens_per_s, one.provision.max_tokens_per_s)
            for one in seen.served
            if one.provision is not None
        ],
    )
    text = await asyncio.to_thread(endpoint_metrics, facts, [text for text in told if text is not None])
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def get_openapi(request: Request) -> Response:
    """How the endpoint is asked, as OpenAPI 3.1."""

    def read(tx: Transaction) -> list[str]:
        endpoint = named(tx, request, "CAN_VIEW")
        there = tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id)
        return [served_name(endpoint, one) for one in there]

    served = await context_of(request).read(read)
    return answer(endpoint_openapi(request.path_params["name"], served, url="/"))


async def call_external_function(_request: Request) -> Response:
    """Nothing here calls other services for its callers.

    Raises:
        NotSupported: Always.
    """
    raise NotSupported(
        "External functions are not supported.",
        evidence="There are no connections of Unity Catalog here, by which the vendor's http_request reaches others.",
        fix="Call the service directly; a model server of somebody else can stand behind an endpoint: docs/cli.md.",
    )


async def _told(gateway: Counting) -> str | None:
    try:
        return await gateway.metrics()
    except GatewayAway:
        return None


def _replica(replica: Replica, names: Mapping[str, str], memory_bytes: Mapping[str, int]) -> ReplicaMetrics:
    whole = memory_bytes.get(replica.node_id, 0)
    return ReplicaMetrics(
        names[replica.deployment_id],
        replica.id,
        replica.state is ReplicaState.READY and replica.failure is None,
        replica.resident_bytes,
        replica.resident_bytes / whole if whole else None,
    )


ROUTES = (
    Route("GET", _METRICS, Permission.READ, get_metrics),
    Route("GET", _OPENAPI, Permission.READ, get_openapi),
    Route("POST", _EXTERNAL_FUNCTION, Permission.READ, call_external_function),
)
DESCRIPTIONS: Mapping[str, Description] = {
    f"GET {_METRICS}": Description(answer=None, answer_types={"text/plain": "Prometheus's text."}, errors="databricks"),
    f"GET {_OPENAPI}": Description(errors="databricks"),
    f"POST {_EXTERNAL_FUNCTION}": Description(body={"type": "object"}, body_required=False, errors="databricks"),
}
