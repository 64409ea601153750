"""The life of an inference request: from its path and key to the engine that answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

from headrace.contracts.openai.models import deployed_card, endpoint_card, model_list
from headrace.contracts.openai.requests import OpenAIBody, model_of, read_object, wants_stream
from headrace.contracts.vertex.predict import CHAT_PATH, COMPLETIONS_PATH
from headrace.gateway.answering import send_json
from headrace.gateway.attempts import patience_of
from headrace.gateway.authentication import authenticate
from headrace.gateway.engine_body import body_for_engine
from headrace.gateway.engine_call import Call, engine_answer, forwarded_headers, model_headers
from headrace.gateway.exchange import Exchange
from headrace.gateway.heartbeat import heartbeats
from headrace.gateway.key_limits import within_limits
from headrace.gateway.limits import Limits
from headrace.gateway.metering import Meter
from headrace.gateway.prediction import predict, raw_predict
from headrace.gateway.priority import priority_of
from headrace.gateway.record import RequestRecord
from headrace.gateway.relay import relay
from headrace.gateway.rerouting import reroute
from headrace.gateway.routes import Action, Match
from headrace.gateway.routing import Routing
from headrace.gateway.routing_table import RoutingTable
from headrace.gateway.usage_log import UsageLog
from headrace.gateway.waiting_room import Meanwhile
from headrace.resources.access import Permission, Principal
from headrace.resources.errors import NotReady
from headrace.resources.snapshot import EndpointRoute

_ENGINE_PATHS = {
    Action.CHAT: CHAT_PATH,
    Action.COMPLETIONS: COMPLETIONS_PATH,
    Action.EMBEDDINGS: "/v1/embeddings",
    Action.TOKENIZE: "/tokenize",
    Action.DETOKENIZE: "/detokenize",
}

_STREAMING = frozenset({Action.CHAT, Action.COMPLETIONS})
_FREE = frozenset({Action.TOKENIZE, Action.DETOKENIZE})
"""No model computes for them."""


async def serve_inference(
    exchange: Exchange, record: RequestRecord, match: Match, *, routing: Routing, limits: Limits, usage_log: UsageLog
) -> None:
    """Answer one inference request, or one for the list of models.

    Raises:
        HeadraceError: It gets no answer; nothing was sent yet, or the answer broke off.
    """
    principal = authenticate(exchange.head, routing.table)
    record.key_id = principal.key_id
    async with routing.running.with_key(principal.key_id):
        await _serve(exchange, record, match, principal, routing=routing, limits=limits, usage_log=usage_log)


async def _serve(
    exchange: Exchange,
    record: RequestRecord,
    match: Match,
    principal: Principal,
    *,
    routing: Routing,
    limits: Limits,
    usage_log: UsageLog,
) -> None:
    if match.action in (Action.MODELS, Action.MODEL):
        await _show_models(exchange, record, match, principal, routing.table)
        return
    if match.endpoint is not None:  # a key learns nothing of projects that it does not reach
        principal.require(Permission.PREDICT, match.endpoint.scope.project)
    body = read_object(await exchange.read_all(limits.body_bytes))
    # A newer table may have come while the body did. From here to the waiting room nothing awaits, but for keys with a
    # limit of tokens, whose prompts are counted: what is undeployed meanwhile is as if it were while they wait.
    table = routing.table
    if match.endpoint is not None:
        endpoint = table.endpoint(match.endpoint.scope, match.endpoint.endpoint)
    else:
        endpoint = table.resolve(model_of(body), principal)
        principal.require(Permission.PREDICT, endpoint.scope.project)
    call = _route(exchange, record, match, endpoint, routing=routing, limits=limits, usage_log=usage_log)
    call.priority = priority_of(exchange.head, body, call.deployed)
    if match.action in _FREE:
        call.meter.waive()
    budget = routing.budgets.of(principal.key_id)
    try:
        if budget is None:
            await _answer_by_any(exchange, call, match, body, endpoint=endpoint, routing=routing)
        else:
            async with within_limits(call, budget, match.action, body) as recount:
                await _answer_by_any(exchange, call, match, body, endpoint=endpoint, routing=routing, moved=recount)
    finally:
        call.meter.break_off()
    call.learn()


async def _answer_by_any(
    exchange: Exchange,
    call: Call,
    match: Match,
    body: OpenAIBody,
    *,
    endpoint: EndpointRoute,
    routing: Routing,
    moved: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Answer; if what it waits for is taken away, by another deployed model of the endpoint, unless it named that one.

    `moved` is called when another one is to answer.
    """
    named = match.endpoint is not None and match.endpoint.deployed_model
    while True:
        try:
            await _answer(exchange, call, match.action, dict(body))  # an engine's own words go into a copy
        except NotReady:
            if named or not reroute(call, routing, endpoint):
                raise
        else:
            return
        call.priority = priority_of(exchange.head, body, call.deployed)
        if moved is not None:
            await moved()


async def _answer(exchange: Exchange, call: Call, action: Action, body: OpenAIBody) -> None:
    if action is Action.PREDICT:
        await predict(exchange, call, body)
    elif action in (Action.RAW_PREDICT, Action.STREAM_RAW_PREDICT):
        await raw_predict(exchange, call, body, stream=action is Action.STREAM_RAW_PREDICT)
    else:
        stream, path = wants_stream(body), _ENGINE_PATHS[action]
        engine_body = body_for_engine(call, path, body)
        meanwhile: Meanwhile = heartbeats(exchange, call) if stream and action in _STREAMING else nullcontext
        async with engine_answer(call, path, engine_body, stream=stream, meanwhile=meanwhile) as answer:
            await relay(exchange, call, answer)


def _route(
    exchange: Exchange,
    record: RequestRecord,
    match: Match,
    endpoint: EndpointRoute,
    *,
    routing: Routing,
    limits: Limits,
    usage_log: UsageLog,
) -> Call:
    deployed = routing.table.choose(endpoint, match.endpoint.deployed_model if match.endpoint else "")
    record.endpoint, record.deployed_model = endpoint.id, deployed.id
    record.routed_s = time.monotonic()
    headers = [
        (b"x-request-id", record.request_id.encode("ascii")),
        (b"x-vertex-ai-endpoint-id", endpoint.id.encode()),
        *model_headers(deployed),
    ]
    return Call(
        record=record,
        deployed=deployed,
        pool=routing.fleet.pools[deployed.deployment_id],
        limits=limits,
        google=match.endpoint is not None,
        headers=headers,
        forwarded=forwarded_headers(exchange.head, record),
        patience_s=patience_of(exchange.head),
        meter=Meter(usage_log, record, endpoint, deployed),
    )


async def _show_models(
    exchange: Exchange, record: RequestRecord, match: Match, principal: Principal, table: RoutingTable
) -> None:
    """The endpoints that the key reaches, one of them, or the deployed models of one endpoint."""
    if match.endpoint is not None:
        scope = match.endpoint.scope
        principal.require(Permission.READ, scope.project)
        endpoint = table.endpoint(scope, match.endpoint.endpoint)
        cards = [
            deployed_card(deployed, deployed.model_user_id or deployed.served_name) for deployed in endpoint.deployed
        ]
        await send_json(exchange, record, model_list(cards))
    elif match.action is Action.MODEL:
        found = table.resolve(match.model, principal)
        await send_json(exchange, record, endpoint_card(found, match.model))
    else:
        cards = [endpoint_card(endpoint, name) for endpoint, name in table.reached(principal)]
        await send_json(exchange, record, model_list(cards))
