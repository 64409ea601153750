"""Endpoints: make, list, get, change, delete."""

from __future__ import annotations

import msgspec
from fastapi import Request, Response

from headrace.api.managing import require_manager
from headrace.api.requests import answer, body_of, context_of, flag, mask_of, scope_of
from headrace.api.vertex.addresses import dedicated_dns
from headrace.api.vertex.bound import bound_to
from headrace.api.vertex.operations import told
from headrace.api.vertex.paging import page_of
from headrace.api.viewing import may_view, require_viewer
from headrace.contracts.vertex.endpoint_bodies import (
    EndpointBody,
    read_endpoint,
    read_endpoint_update,
    read_long_update,
)
from headrace.contracts.vertex.endpoints import Bound, endpoint_json
from headrace.contracts.vertex.listing import listing
from headrace.contracts.vertex.operations import contract_of, operation_json
from headrace.contracts.vertex.read_masks import ReadMask
from headrace.contracts.vertex.timestamps import version_of
from headrace.control import commands
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import EndpointNotFound
from headrace.resources.operations import Operation
from headrace.store import Transaction


async def list_endpoints(request: Request) -> Response:
    """The endpoints of a location, page by page."""
    scope, question = scope_of(request), listing(request.query_params, kind="endpoint")
    mask = ReadMask(mask_of(request), EndpointBody)

    def read(tx: Transaction) -> tuple[list[Endpoint], str, dict[str, list[Bound]]]:
        found, next_page = page_of(tx, Endpoint, question, scope=scope)
        page = [one for one in found if may_view(request, one)]  # so that some pages are shorter, as they may be
        return page, next_page, bound_to(tx, request, scope, page)

    page, next_page, bound = await context_of(request).read(read)
    host = dedicated_dns(request)
    wire = {"endpoints": [mask.of(endpoint_json(endpoint, bound[endpoint.id], host=host)) for endpoint in page]}
    return answer({**wire, "nextPageToken": next_page} if next_page else wire)


async def get_endpoint(request: Request) -> Response:
    """One endpoint and what is deployed on it."""
    scope, endpoint_id = scope_of(request), request.path_params["endpoint"]

    def read(tx: Transaction) -> tuple[Endpoint, list[Bound]]:
        endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id)
        if endpoint is None:
            raise EndpointNotFound(f"There is no endpoint {scope.name('endpoints', endpoint_id)}.")
        require_viewer(tx, request, scope, endpoint_id)
        return endpoint, bound_to(tx, request, scope, [endpoint])[endpoint_id]

    endpoint, bound = await context_of(request).read(read)
    return answer(endpoint_json(endpoint, bound, host=dedicated_dns(request)))


async def create_endpoint(request: Request) -> Response:
    """Make an endpoint with nothing behind it; ``endpointId`` in the query gives it an id of the caller's own."""
    context, query = context_of(request), request.query_params
    wish = read_endpoint(await body_of(request))
    order = commands.EndpointRequest(
        scope=scope_of(request),
        contract=contract_of(request.path_params["version"]),
        endpoint_id=query.get("endpointId", query.get("endpoint_id", "")),
        **msgspec.structs.asdict(wish),
    )
    operation = await context.write(lambda tx: commands.create_endpoint(tx, order, now=context.clock()))
    return answer(await told(request, operation))


async def update_endpoint(request: Request) -> Response:
    """Change what ``updateMask`` names; the answer is the endpoint."""
    context, scope, endpoint_id = context_of(request), scope_of(request), request.path_params["endpoint"]
    query = request.query_params
    mask = query.get("updateMask", query.get("update_mask", ""))
    update = read_endpoint_update(await body_of(request), mask)
    version = version_of(update.etag) if update.etag else None

    def change(tx: Transaction) -> tuple[Endpoint, list[Bound]]:
        require_manager(tx, request, scope, endpoint_id)
        endpoint = commands.change_endpoint(tx, scope, endpoint_id, update.changes, version=version)
        return endpoint, bound_to(tx, request, scope, [endpoint])[endpoint_id]

    endpoint, bound = await context.write(change)
    return answer(endpoint_json(endpoint, bound, host=dedicated_dns(request)))


async def update_endpoint_long_running(request: Request) -> Response:
    """Change how long an answer may take to begin, as an operation that is done at once; ``PATCH`` changes the rest."""
    context, scope, endpoint_id = context_of(request), scope_of(request), request.path_params["endpoint"]
    update = read_long_update(await body_of(request))
    version = version_of(update.etag) if update.etag else None
    contract = contract_of(request.path_params["version"])

    def change(tx: Transaction) -> Operation:
        require_manager(tx, request, scope, endpoint_id)
        commands.change_endpoint(tx, scope, endpoint_id, update.changes, version=version)
        return commands.endpoint_updated(tx, scope, endpoint_id, contract=contract, now=context.clock())

    return answer(await told(request, await context.write(change)))


async def delete_endpoint(request: Request) -> Response:
    """Delete an endpoint; with ``force`` also what is deployed on it."""
    context, scope, endpoint_id = context_of(request), scope_of(request), request.path_params["endpoint"]
    contract, force = contract_of(request.path_params["version"]), flag(request, "force")

    def delete(tx: Transaction) -> Operation:
        require_manager(tx, request, scope, endpoint_id)
        return commands.delete_endpoint(tx, scope, endpoint_id, force=force, contract=contract, now=context.clock())

    return answer(operation_json(await context.write(delete)))
