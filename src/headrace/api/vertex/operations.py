"""Long-running operations: poll, wait, list, cancel, delete.

An operation's identifier is unique in its location, so it is found under any parent there. Its answer speaks the
version of the API through which it was asked for, whatever version (or none, below ``/ui/``) it is polled by.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from headrace.api.managing import require_manager
from headrace.api.requests import answer, body_of, context_of, scope_of
from headrace.api.vertex.addresses import dedicated_dns
from headrace.api.vertex.bound import bound_to
from headrace.api.vertex.paging import page_of
from headrace.api.viewing import require_viewer, shown
from headrace.api.waiting import until
from headrace.contracts.vertex.endpoints import Bound, plain_endpoint_json
from headrace.contracts.vertex.listing import listing
from headrace.contracts.vertex.operations import filter_done, operation_json, read_wait
from headrace.control import commands
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import NotSupported, OperationNotFound, StillInUse
from headrace.resources.names import Scope
from headrace.resources.operations import LISTED, Operation
from headrace.resources.states import OperationState
from headrace.store import Transaction

_DONE = tuple(state for state in OperationState if state is not OperationState.RUNNING)

MAX_WAIT_S = 60.0
"""The longest that ``:wait`` holds a connection; shorter than the time-outs of proxies and clients."""


async def get_operation(request: Request) -> Response:
    """How far it is."""
    scope, operation_id = scope_of(request), request.path_params["operation"]
    found = await context_of(request).read(lambda tx: _seen(tx, request, scope, operation_id))
    return answer(await told(request, found))


async def wait_operation(request: Request) -> Response:
    """How far it is, once it is done or the time is over."""
    scope, operation_id = scope_of(request), request.path_params["operation"]
    wait_s = min(read_wait(await body_of(request), default_s=MAX_WAIT_S), MAX_WAIT_S)
    operation = await until(
        context_of(request),
        lambda tx: _seen(tx, request, scope, operation_id),
        lambda operation: operation.state is not OperationState.RUNNING,
        wait_s=wait_s,
    )
    return answer(await told(request, operation))


async def told(request: Request, operation: Operation) -> dict[str, Any]:
    """An operation's JSON; of one that made or changed an endpoint with that, as it is now, while it is there."""
    if operation.kind not in ("create_endpoint", "update_endpoint"):
        return operation_json(operation)
    scope, wanted = operation.scope, operation.targets["endpoint"]

    def read(tx: Transaction) -> tuple[Endpoint, list[Bound]] | None:
        endpoint = tx.get(Endpoint, scope=scope, id=wanted)
        return None if endpoint is None else (endpoint, bound_to(tx, request, scope, [endpoint])[wanted])

    found = await context_of(request).read(read)
    host = dedicated_dns(request)
    return operation_json(operation, plain_endpoint_json(*found, host=host) if found else None)


async def list_operations(request: Request) -> Response:
    """The operations of a location, a model or an endpoint, newest first, page by page."""
    scope, parameters = scope_of(request), dict(request.query_params)
    done = filter_done(parameters.pop("filter", ""))
    question = listing(parameters, kind="operation", about=str(done))
    collection = next((name for name in ("model", "endpoint") if name in request.path_params), "")
    parent = scope.name(f"{collection}s", request.path_params[collection]) if collection else ""

    narrowed: dict[str, Any] = {"parent": parent} if parent else {}
    if done is not None:
        narrowed["state"] = _DONE if done else OperationState.RUNNING

    def read(tx: Transaction) -> tuple[list[Operation], str]:
        found, next_page = page_of(tx, Operation, question, scope=scope, **narrowed)
        return shown(tx, request, found), next_page

    page, next_page = await context_of(request).read(read)
    wire = {"operations": [operation_json(operation) for operation in page]}
    return answer({**wire, "nextPageToken": next_page} if next_page else wire)


async def cancel_operation(request: Request) -> Response:
    """Stop it if it can be stopped: a deploy is undone. One that is done stays as it is."""
    context, scope, operation_id = context_of(request), scope_of(request), request.path_params["operation"]

    def cancel(tx: Transaction) -> None:
        operation = _operation(tx, scope, operation_id)
        require_manager(tx, request, scope, operation.targets.get("endpoint", ""))
        if operation.state is OperationState.RUNNING:
            _undo(tx, operation, now=context.clock())

    await context.write(cancel)
    return answer({})


def _undo(tx: Transaction, operation: Operation, *, now: float) -> None:
    if not operation.deploys:
        raise NotSupported(
            f"An operation of the kind {operation.kind!r} cannot be cancelled.",
            fix="Wait for it: it ends by itself within the time that running requests get to finish.",
        )
    endpoint_id, deployed_model_id = operation.targets["endpoint"], operation.targets["deployed_model"]
    commands.undeploy(tx, operation.scope, endpoint_id, deployed_model_id, contract=operation.contract, now=now)


async def delete_operation(request: Request) -> Response:
    """Forget an operation that is done."""
    scope, operation_id = scope_of(request), request.path_params["operation"]

    def forget(tx: Transaction) -> None:
        operation = _operation(tx, scope, operation_id)
        require_manager(tx, request, scope, operation.targets.get("endpoint", ""))
        if operation.state is OperationState.RUNNING:
            raise StillInUse(f"Operation {operation_id} is running.", fix="Wait until it is done, or cancel it.")
        tx.delete(operation)

    await context_of(request).write(forget)
    return answer({})


def _seen(tx: Transaction, request: Request, scope: Scope, operation_id: str) -> Operation:
    """As `_operation`, if whoever asks may see the endpoint that it is about."""
    operation = _operation(tx, scope, operation_id)
    require_viewer(tx, request, scope, operation.targets.get("endpoint", ""))
    return operation


def _operation(tx: Transaction, scope: Scope, operation_id: str) -> Operation:
    operation = tx.get(Operation, scope=scope, id=operation_id)
    if operation is None:
        raise OperationNotFound(f"There is no operation {operation_id} in {scope}.", fix=LISTED)
    return operation
