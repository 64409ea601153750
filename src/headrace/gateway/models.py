"""The list of models, as OpenAI's API has it."""

from __future__ import annotations

from headrace.contracts.openai.models import deployed_card, endpoint_card, model_list
from headrace.gateway.answering import send_json
from headrace.gateway.callers import is_open_to, open_to
from headrace.gateway.exchange import Exchange
from headrace.gateway.record import RequestRecord
from headrace.gateway.routes import Action, Match
from headrace.gateway.routing_table import RoutingTable
from headrace.resources.access import Permission, Principal


async def show_models(
    exchange: Exchange, record: RequestRecord, match: Match, principal: Principal, table: RoutingTable
) -> None:
    """The endpoints that the key reaches, one of them, or the deployed models of one endpoint.

    None of those whose access list does not let the key ask.
    """
    if match.endpoint is not None:
        scope = match.endpoint.scope
        principal.require(Permission.READ, scope.project)
        endpoint = open_to(principal, table.endpoint(scope, match.endpoint.endpoint))
        cards = [
            deployed_card(deployed, deployed.model_user_id or deployed.served_name) for deployed in endpoint.deployed
        ]
        await send_json(exchange, record, model_list(cards))
    elif match.action is Action.MODEL:
        found = open_to(principal, table.resolve(match.model, principal))
        await send_json(exchange, record, endpoint_card(found, match.model))
    else:
        cards = [
            endpoint_card(endpoint, name)
            for endpoint, name in table.reached(principal)
            if is_open_to(principal, endpoint)
        ]
        await send_json(exchange, record, model_list(cards))
