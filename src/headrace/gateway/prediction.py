"""``:predict``, ``:rawPredict`` and ``:streamRawPredict``: instances to requests in OpenAI's wire and back."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from headrace.contracts.openai.events import event_data
from headrace.contracts.openai.requests import OpenAIBody, wants_stream
from headrace.contracts.openai.usage import UsageFinder
from headrace.contracts.vertex.alt import is_strict
from headrace.contracts.vertex.errors import google_error
from headrace.contracts.vertex.predict import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    Instance,
    predict_answer,
    read_instances,
    shown_predictions,
)
from headrace.gateway.answering import send_json
from headrace.gateway.call import Call
from headrace.gateway.engine_body import body_for_engine
from headrace.gateway.engine_call import EngineAnswer
from headrace.gateway.exchange import Exchange
from headrace.gateway.heartbeat import Heartbeats
from headrace.gateway.in_parallel import in_parallel
from headrace.gateway.relay import engine_error, read_whole, relay, relay_events, relay_refusal
from headrace.resources.errors import BadField, EngineFailed, HeadraceError

_NOT_OPENAI = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError, IndexError, KeyError, TypeError)
"""What reading an engine's answer raises if it has not the shape that it should."""

LINES = b"application/json"
"""The content type of streamed predictions: one JSON document per line. It knows no comments, so one that stands in
line gets nothing until its turn has come."""


async def predict(exchange: Exchange, call: Call, body: OpenAIBody) -> None:
    """``:predict``: every instance is answered, or the request fails with the first error."""
    instances = _instances(body)
    predictions = await _predictions(call, instances)
    record = call.record
    answer = predict_answer(
        shown_predictions(instances, predictions, strict=is_strict(exchange.head.query)),
        call.deployed,
        prompt_tokens=record.prompt_tokens or 0,
        completion_tokens=record.completion_tokens or 0,
    )
    call.meter.finish()
    await send_json(exchange, record, answer, headers=call.headers)


async def raw_predict(exchange: Exchange, call: Call, body: OpenAIBody, *, stream: bool) -> None:
    """``:rawPredict`` and ``:streamRawPredict``: what the model server itself would answer.

    A body with ``instances`` gets ``{"predictions": […]}``, or on ``:streamRawPredict``, if its one instance asks for a
    stream, a line ``{"predictions": ["new text"]}`` per piece, without the prompt. A body in OpenAI's shape gets
    OpenAI's answer, unary or streamed as it asks.
    """
    if "instances" not in body:
        await _openai(exchange, call, body)
        return
    instances = _instances(body)
    if stream and (wants_stream(body) or any(instance.stream for instance in instances)):
        await _stream_lines(exchange, call, instances)
    else:
        predictions = shown_predictions(instances, await _predictions(call, instances), strict=False)
        call.meter.finish()
        await send_json(exchange, call.record, {"predictions": predictions}, headers=call.headers)


def _instances(body: OpenAIBody) -> list[Instance]:
    if "instances" not in body:
        raise BadField(
            "The body has no `instances`.",
            evidence=f"It has {', '.join(sorted(body)) or 'nothing'}.",
            fix='For example {"instances": [{"prompt": "Hello", "max_tokens": 64}]}.',
        )
    return read_instances(body["instances"], body.get("parameters"))


async def _openai(exchange: Exchange, call: Call, body: OpenAIBody) -> None:
    if ("messages" in body) == ("prompt" in body):
        raise BadField(
            "The body has neither `instances`, nor exactly one of `messages` and `prompt`.",
            evidence=f"It has {', '.join(sorted(body)) or 'nothing'}.",
        )
    path = CHAT_PATH if "messages" in body else COMPLETIONS_PATH
    stream = wants_stream(body)
    engine_body = body_for_engine(call, path, body)
    meanwhile = Heartbeats(exchange, call) if stream else None
    async with EngineAnswer(call, path, engine_body, stream=stream, meanwhile=meanwhile) as answer:
        await relay(exchange, call, answer)


async def _predictions(call: Call, instances: list[Instance]) -> list[Any]:
    """The predictions of all instances, in their order; so many at a time."""
    return await in_parallel(partial(_prediction, call), instances, at_a_time=call.limits.predict_parallel)


async def _prediction(call: Call, instance: Instance) -> Any:
    body = instance.engine_body(call.deployed.served_name, stream=False)
    async with EngineAnswer(call, instance.path, body, stream=False) as answer:
        whole = await read_whole(call, answer)
        if answer.status >= 300:
            raise engine_error(call, answer, whole)
        finder = UsageFinder()
        finder.feed(whole)
        call.meter.add(finder.usage())
    try:
        return instance.prediction(msgspec.json.decode(whole))
    except _NOT_OPENAI as error:
        raise _not_openai(error) from error


async def _stream_lines(exchange: Exchange, call: Call, instances: list[Instance]) -> None:
    if len(instances) != 1:
        raise BadField(
            "A streamed prediction takes exactly one instance.",
            evidence=f"`instances` has {len(instances)}.",
            fix="Send one request per instance, or leave out `stream`.",
        )
    (instance,) = instances
    if not instance.streams:
        raise BadField("An embedding comes in one piece.", fix="Leave out `stream`.")
    call.hides_usage = not call.deployed.external_host
    body = instance.engine_body(call.deployed.served_name, stream=True, usage=call.hides_usage)

    def lines(events: bytes) -> bytes:
        try:
            return b"".join(instance.stream_line(data) for data in event_data(events))
        except _NOT_OPENAI as error:
            raise _not_openai(error) from error

    async with EngineAnswer(call, instance.path, body, stream=True) as answer:
        if answer.status >= 300:
            await relay_refusal(exchange, call, answer)
        else:
            await relay_events(exchange, call, answer, LINES, rewrite=lines, broken=_broken_line)


def _broken_line(error: HeadraceError) -> bytes:
    return msgspec.json.encode(google_error(error)[1]) + b"\n"


def _not_openai(error: Exception) -> EngineFailed:
    return EngineFailed(
        "The engine's answer is not what OpenAI's wire says.", evidence=f"{type(error).__name__}: {error}"
    )
