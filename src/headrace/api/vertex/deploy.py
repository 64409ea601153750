"""``:deploy``: from weights at an address to an endpoint that answers, in one request."""

from __future__ import annotations

import msgspec
from fastapi import Request, Response

from headrace.api.garden import locate, with_weights
from headrace.api.managing import require_manager
from headrace.api.requests import Context, answer, body_of, context_of, scope_of
from headrace.contracts.vertex.deploy import DeployWish, PublishedWish, read_deploy
from headrace.contracts.vertex.operations import contract_of, operation_json
from headrace.control import commands
from headrace.control.garden import Wanted
from headrace.resources.operations import Operation
from headrace.runtimes.images import with_wishes
from headrace.store import Transaction


async def deploy(request: Request) -> Response:
    """Register the model, make the endpoint, and begin to deploy the one on the other."""
    context = context_of(request)
    query = request.query_params
    endpoint_id = query.get("endpointId", query.get("endpoint_id", ""))
    wish = read_deploy(await body_of(request), scope_of(request), endpoint_id=endpoint_id)
    order = _order(wish, contract_of(request.path_params["version"]))
    if wish.published is not None:
        order = await _found(context, order, wish.published)

    def begin(tx: Transaction) -> Operation:
        require_manager(tx, request, order.scope, order.endpoint_id)
        return commands.deploy(tx, order, now=context.clock(), data_dir=context.layout.data_dir)

    return answer(operation_json(await context.write(begin)))


def _order(wish: DeployWish, contract: str) -> commands.DeployRequest:
    fields = msgspec.structs.asdict(wish)
    del fields["published"]
    fields["spec"] = with_wishes(wish.spec)
    if wish.timeout_s is None:
        del fields["timeout_s"]  # the platform's own limit
    return commands.DeployRequest(contract=contract, **fields)


async def _found(context: Context, order: commands.DeployRequest, wish: PublishedWish) -> commands.DeployRequest:
    """An order for a published model, with where its weights are."""
    wanted = Wanted(
        catalogue=wish.publisher_model, hub=wish.hub_model, accepted=wish.accepts_eula, hub_token=wish.hub_token
    )
    return with_weights(order, await locate(context, wanted, order.scope.project))
