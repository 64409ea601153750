"""The life of an inference request: from its path and key to the engine that answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from headrace.contracts.openai.requests import OpenAIBody, model_of, read_object, wants_stream
from headrace.contracts.vertex.predict import CHAT_PATH, COMPLETIONS_PATH
from headrace.gateway.attempts import patience_of
from headrace.gateway.authentication import authenticate
from headrace.gateway.call import Call, forwarded_headers, model_headers
from headrace.gateway.callers import open_to
from headrace.gateway.claims import claim_work, settle_work
from headrace.gateway.engine_body import body_for_engine
from headrace.gateway.engine_call import EngineAnswer
from headrace.gateway.exchange import Exchange
from headrace.gateway.generation import as_chat, count_tokens, generate_content, stream_generate_content
from headrace.gateway.heartbeat import Heartbeats
from headrace.gateway.invocations import as_asked
from headrace.gateway.key_limits import within_limits
from headrace.gateway.limits import Limits
from headrace.gateway.metering import Meter
from headrace.gateway.models import show_models
from headrace.gateway.prediction import predict, raw_predict
from headrace.gateway.priority import priority_of
from headrace.gateway.record import RequestRecord
from headrace.gateway.relay import relay
from headrace.gateway.request_log import RequestLogger
from headrace.gateway.rerouting import reroute
from headrace.gateway.routes import Action, Match
from headrace.gateway.routing import Routing
from headrace.gateway.traffic import session_of
from headrace.gateway.usage_log import UsageLog
from headrace.resources.access import Permission, Principal
from headrace.resources.errors import BadJson, HeadraceError, NotReady, NotSupported
from headrace.resources.snapshot import EndpointRoute

_ENGINE_PATHS = {
    Action.CHAT: CHAT_PATH,
    Action.COMPLETIONS: COMPLETIONS_PATH,
    Action.EMBEDDINGS: "/v1/embeddings",
    Action.TOKENIZE: "/tokenize",
    Action.DETOKENIZE: "/detokenize",
}

_STREAMING = frozenset({Action.CHAT, Action.COMPLETIONS})
_FREE = frozenset({Action.TOKENIZE, Action.DETOKENIZE, Action.COUNT_TOKENS})
"""No model computes for them."""
_LISTING = frozenset({Action.MODELS, Action.MODEL})


class Asked(NamedTuple):
    """What a request asks, once it was read."""

    exchange: Exchange
    match: Match
    endpoint: EndpointRoute
    body: OpenAIBody
    """As `as_chat` has it."""
    size_bytes: int
    """Of the body as it came."""
    invoked: bool = False
    """Whether it came as one of Databricks' invocations."""


class Inference:
    """Answers requests for inference, and for the list of models.

    Args:
        routing: By what they are routed.
        limits: How much of everything is taken.
        usage_log: Where it is written what they used.
        request_log: Where those that an endpoint logs are kept.
    """

    def __init__(self, routing: Routing, limits: Limits, usage_log: UsageLog, request_log: RequestLogger) -> None:
        self._routing = routing
        self._limits = limits
        self._usage_log = usage_log
        self._request_log = request_log

    async def serve(self, exchange: Exchange, record: RequestRecord, match: Match) -> None:
        """Answer one.

        Raises:
            HeadraceError: It gets no answer; nothing was sent yet, or the answer broke off.
        """
        principal = authenticate(exchange.head, self._routing.table)
        record.key_id = principal.key_id
        with self._routing.running.with_key(principal.key_id):
            if match.action in _LISTING:
                await show_models(exchange, record, match, principal, self._routing.table)
            else:
                await self._infer(exchange, record, match, principal)

    async def _infer(self, exchange: Exchange, record: RequestRecord, match: Match, principal: Principal) -> None:
        if match.endpoint is not None:  # a key learns nothing of projects that it does not reach
            principal.require(Permission.PREDICT, match.endpoint.scope.project)
        if match.action is Action.EXPLAIN:
            raise NotSupported(
                "No explanations are made here.",
                evidence="The vendor's explain tabular and picture models; nothing that is served here computes them.",
                fix="For a model of text: logprobs, on `/chat/completions` or in generationConfig.responseLogprobs.",
            )
        whole = await exchange.read_all(self._limits.body_bytes)
        body = _object(exchange, whole)
        # A newer table may have come while the body did. From here to the waiting room nothing awaits, but for keys
        # with a limit of tokens, whose prompts are counted: what is undeployed meanwhile is as if it were then.
        endpoint = open_to(principal, self._endpoint(match, body, principal))
        invoked = match.action is Action.INVOCATIONS
        if invoked:
            match, body = as_asked(match, body)
        body = as_chat(match.action, body)
        asked = Asked(exchange, match, endpoint, body, len(whole), invoked)
        call = self._route(asked, record)
        if match.action in _FREE:
            call.meter.waive()
        else:
            record.recording = self._request_log.recording(record.request_id, asked.endpoint, call.deployed, whole)
        budget = self._routing.budgets.of(principal.key_id, endpoint)
        answered, failed = False, None
        try:
            if call.deployed.provision is not None:
                await self._claim(asked, call)
            if budget is None:
                await self._answer_by_any(asked, call)
            else:
                async with within_limits(call, budget, match.action, body) as recount:
                    await self._answer_by_any(asked, call, moved=recount)
            answered = True
        except HeadraceError as error:
            failed = error
            call.meter.blame(error)
            raise
        finally:
            call.meter.break_off()
            if call.claim is not None:
                settle_work(call, body, len(whole), whole=answered, error=failed)
            del failed  # its traceback holds this frame, and the two would hold each other
        call.learn()

    async def _claim(self, asked: Asked, call: Call) -> None:
        """Claim what it will cost of the throughput that was sold, if one was."""
        if asked.match.action not in _FREE:
            endpoint, action, body = asked.endpoint, asked.match.action, asked.body
            await claim_work(call, self._routing.throughputs, endpoint, action, body, size_bytes=asked.size_bytes)

    def _endpoint(self, match: Match, body: OpenAIBody, principal: Principal) -> EndpointRoute:
        table = self._routing.table
        if match.endpoint is not None:
            find = table.named if match.endpoint.by_name else table.endpoint
            return find(match.endpoint.scope, match.endpoint.endpoint)
        endpoint = table.resolve(match.model or model_of(body), principal)
        principal.require(Permission.PREDICT, endpoint.scope.project)
        return endpoint

    def _route(self, asked: Asked, record: RequestRecord) -> Call:
        head, match, endpoint = asked.exchange.head, asked.match, asked.endpoint
        named, session = match.endpoint.deployed_model if match.endpoint else "", session_of(head)
        deployed = self._routing.table.choose(endpoint, named, session=session)
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
            pool=self._routing.fleet.pools[deployed.deployment_id],
            limits=self._limits,
            translated=match.endpoint is not None or asked.invoked,
            headers=headers,
            forwarded=forwarded_headers(head, record),
            patience_s=patience_of(head),
            endpoint_s=endpoint.inference_timeout_s,
            priority=priority_of(head, asked.body, deployed),
            session=session,
            meter=Meter(self._usage_log, record, endpoint, deployed),
        )

    async def _answer_by_any(
        self, asked: Asked, call: Call, *, moved: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Answer; if what it waits for is taken away, by another deployed model of the endpoint, unless it named one.

        Args:
            asked: The request.
            call: What answers it at first.
            moved: Called when another one is to answer.
        """
        match = asked.match
        call.pool.arrivals.count += match.action not in _FREE
        named = match.endpoint is not None and match.endpoint.deployed_model
        while True:
            try:
                await _answer(asked.exchange, call, match.action, dict(asked.body))  # an engine's words go into a copy
            except NotReady:
                if named or not reroute(call, self._routing, asked.endpoint):
                    raise
            else:
                return
            call.priority = priority_of(asked.exchange.head, asked.body, call.deployed)
            if call.claim is not None or call.deployed.provision is not None:
                await self._claim(asked, call)
            if moved is not None:
                await moved()


def _object(exchange: Exchange, whole: bytes) -> OpenAIBody:
    """The body as `read_object` has it; of one that cannot be read because it is compressed, that is said."""
    try:
        return read_object(whole)
    except BadJson as error:
        coding = (exchange.head.header(b"content-encoding") or b"identity").decode("latin-1")
        if coding == "identity":
            raise
        raise BadJson(
            "The body is compressed, and is not read so.",
            evidence=f"It has Content-Encoding: {coding[:40]}.",
            fix="Send the JSON as it is.",
        ) from error


async def _answer(exchange: Exchange, call: Call, action: Action, body: OpenAIBody) -> None:
    path = _ENGINE_PATHS.get(action)
    if path is not None:
        stream = wants_stream(body)
        engine_body = body_for_engine(call, path, body)
        meanwhile = Heartbeats(exchange, call) if stream and action in _STREAMING else None
        async with EngineAnswer(call, path, engine_body, stream=stream, meanwhile=meanwhile) as answer:
            await relay(exchange, call, answer)
    elif action is Action.PREDICT:
        await predict(exchange, call, body)
    elif action in (Action.RAW_PREDICT, Action.STREAM_RAW_PREDICT):
        await raw_predict(exchange, call, body, stream=action is Action.STREAM_RAW_PREDICT)
    elif action is Action.GENERATE_CONTENT:
        await generate_content(exchange, call, body)
    elif action is Action.STREAM_GENERATE_CONTENT:
        await stream_generate_content(exchange, call, body)
    else:
        await count_tokens(exchange, call, body)
