"""Endpoints: list, get, undeploy, delete."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from fastapi import Request, Response

from headrace.api.requests import answer, body_of, context_of, flag, scope_of
from headrace.api.vertex.paging import page_of
from headrace.contracts.vertex.endpoints import Bound, endpoint_json, read_undeploy
from headrace.contracts.vertex.listing import listing
from headrace.contracts.vertex.operations import contract_of, operation_json
from headrace.control import commands
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import EndpointNotFound
from headrace.resources.names import Scope
from headrace.resources.states import ReplicaState
from headrace.store import Transaction


async def list_endpoints(request: Request) -> Response:
    """The endpoints of a location, page by page."""
    scope, question = scope_of(request), listing(request.query_params, kind="endpoint")

    def read(tx: Transaction) -> tuple[list[Endpoint], str, dict[str, list[Bound]]]:
        page, next_page = page_of(tx, Endpoint, question, scope=scope)
        return page, next_page, _bound(tx, scope, page)

    page, next_page, bound = await context_of(request).read(read)
    host = request.headers.get("host", "")
    wire = {"endpoints": [endpoint_json(endpoint, bound[endpoint.id], host=host) for endpoint in page]}
    return answer({**wire, "nextPageToken": next_page} if next_page else wire)


async def get_endpoint(request: Request) -> Response:
    """One endpoint and what is deployed on it."""
    scope, endpoint_id = scope_of(request), request.path_params["endpoint"]

    def read(tx: Transaction) -> tuple[Endpoint, list[Bound]]:
        endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id)
        if endpoint is None:
            raise EndpointNotFound(f"There is no endpoint {scope.name('endpoints', endpoint_id)}.")
        return endpoint, _bound(tx, scope, [endpoint])[endpoint_id]

    endpoint, bound = await context_of(request).read(read)
    return answer(endpoint_json(endpoint, bound, host=request.headers.get("host", "")))


async def undeploy_model(request: Request) -> Response:
    """Take one deployed model off its endpoint."""
    context, scope, endpoint_id = context_of(request), scope_of(request), request.path_params["endpoint"]
    deployed_model_id, traffic = read_undeploy(await body_of(request))
    contract = contract_of(request.path_params["version"])
    operation = await context.write(
        lambda tx: commands.undeploy(
            tx, scope, endpoint_id, deployed_model_id, contract=contract, now=context.clock(), traffic=traffic
        )
    )
    return answer(operation_json(operation))


async def delete_endpoint(request: Request) -> Response:
    """Delete an endpoint; with ``force`` also what is deployed on it."""
    context, scope, endpoint_id = context_of(request), scope_of(request), request.path_params["endpoint"]
    contract, force = contract_of(request.path_params["version"]), flag(request, "force")
    operation = await context.write(
        lambda tx: commands.delete_endpoint(tx, scope, endpoint_id, force=force, contract=contract, now=context.clock())
    )
    return answer(operation_json(operation))


def _bound(tx: Transaction, scope: Scope, endpoints: Iterable[Endpoint]) -> dict[str, list[Bound]]:
    """What is deployed, by endpoint."""
    ids = tuple(endpoint.id for endpoint in endpoints)
    bindings = tx.list(DeployedModel, scope=scope, endpoint_id=ids)
    pools = tuple({binding.deployment_id for binding in bindings})
    deployments = {one.id: one for one in tx.list(Deployment, scope=scope, id=pools)}
    ready = Counter(
        replica.deployment_id
        for replica in tx.list(Replica, scope=scope, deployment_id=pools, state=ReplicaState.READY)
        if replica.failure is None
    )
    bound: dict[str, list[Bound]] = defaultdict(list)
    for binding in bindings:
        pool = deployments[binding.deployment_id]
        bound[binding.endpoint_id].append(Bound(binding, pool, ready[pool.id]))
    return bound
