"""From the engine to the client: pieces go on as they come; a broken answer is told apart from a whole one."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from headrace.contracts.openai.errors import REFUSALS, message_of, openai_error
from headrace.contracts.openai.events import event
from headrace.contracts.openai.usage import UsageFinder
from headrace.gateway import external
from headrace.gateway.call import Call
from headrace.gateway.event_pump import EventPump
from headrace.gateway.exchange import Exchange, LastWords
from headrace.gateway.metering import StreamMeter
from headrace.gateway.upstream import BrokeOff, Stalled, UpstreamAnswer
from headrace.resources.errors import (
    EngineBrokeOff,
    EngineFailed,
    EngineRefused,
    EngineStalled,
    HeadraceError,
    NotSupported,
    QueueFull,
)

MAX_ERROR_BYTES = 64 * 1024

EVENT_STREAM = b"text/event-stream; charset=utf-8"


async def relay(exchange: Exchange, call: Call, answer: UpstreamAnswer) -> None:
    """Pass an engine's answer on as it is, whatever its kind.

    Raises:
        HeadraceError: It is an error, or one that broke off before the client saw any of it; or it is no stream, and
            the client, who waited for one, has had the beginning of it.
    """
    content_type = answer.header(b"content-type")
    if answer.status >= 300:
        await relay_refusal(exchange, call, answer)
    elif content_type.startswith(b"text/event-stream"):
        await relay_events(exchange, call, answer, content_type)
    elif exchange.started:
        raise EngineFailed(
            "The engine answered in one piece where a stream was asked for, and has begun.",
            evidence=f"Its answer has content-type {content_type[:80].decode('latin-1')!r}.",
            fix="Ask without `stream`.",
        )
    else:
        await _relay_document(exchange, call, answer)


async def relay_events(
    exchange: Exchange,
    call: Call,
    answer: UpstreamAnswer,
    content_type: bytes,
    *,
    rewrite: Callable[[bytes], bytes] | None = None,
    closing: Callable[[], bytes] | None = None,
    broken: LastWords | None = None,
) -> None:
    """Pass on a stream of server-sent events.

    If the engine breaks off, or anything else ends the answer early, the client gets what `broken` makes of that, and
    then its connection ends without the last chunk of HTTP's chunked coding, and without ``[DONE]``: no client can take
    the answer for whole.

    Args:
        exchange: The client's side.
        call: What is answered.
        answer: The engine's side.
        content_type: Of what the client gets.
        rewrite: From whole events to what the client gets of them; without it, the events.
        closing: What the client gets behind the last of them.
        broken: The last piece of an answer that broke off; without it, an event.

    Raises:
        EngineBrokeOff: The engine did, or said that it failed.
        EngineRefused: It said in the midst that the request is at fault.
        EngineStalled: It stood still.
    """
    meter = StreamMeter(call.meter)
    pump = EventPump(exchange, call, meter, rewrite)
    if not exchange.started:  # else it had to wait, and has had comments
        await begin_stream(exchange, call, content_type, broken=broken)
    try:
        while not await answer.pipe(pump.take):
            await exchange.drained()
        rest = pump.rest()
        _require_end(call, meter)
        meter.finish()
        if closing is not None:
            rest += closing()
        await exchange.end(rest)
    except BrokeOff as error:
        raise broke_off(call, error) from error
    finally:
        meter.add()


def _require_end(call: Call, meter: StreamMeter) -> None:
    """Hold that a stream that is over came to its end: engines of ours say so, others may not."""
    if not (meter.ended or call.deployed.external_host):
        raise BrokeOff("The stream ended without [DONE].")


async def begin_stream(exchange: Exchange, call: Call, content_type: bytes, *, broken: LastWords | None = None) -> None:
    """Send the head of a streamed answer, and note what its last words are; without `broken`, an event."""
    call.record.status = 200
    exchange.last_words = broken or broken_event
    await exchange.start(200, [(b"content-type", content_type), (b"cache-control", b"no-cache"), *call.headers])


async def relay_refusal(exchange: Exchange, call: Call, answer: UpstreamAnswer) -> None:
    """Pass an engine's error on: as it is to OpenAI's clients if the request is at fault, else in our own words.

    Raises:
        HeadraceError: What is to be told in our own words; everything, where the answer has its status already.
    """
    body = await read_whole(call, answer, limit_bytes=MAX_ERROR_BYTES)
    if answer.status in REFUSALS:
        call.meter.refuse()
    if call.translated or answer.status not in REFUSALS or exchange.started:
        raise engine_error(call, answer, body)
    call.record.status = answer.status
    call.record.code = EngineRefused.code
    if call.record.recording is not None:
        call.record.recording.answer(body)
    await exchange.answer(answer.status, [_content_type(answer), *call.headers], body)


def engine_error(call: Call, answer: UpstreamAnswer, body: bytes) -> HeadraceError:
    """What an engine's error means for the one who asked. A redirect is one too: it is not followed."""
    if call.deployed.external_host:
        return external.error_of(call.deployed.external_host, answer, body)
    message = message_of(body) or f"HTTP {answer.status} without a reason."
    if answer.status in REFUSALS:
        return EngineRefused(message)
    if answer.status == 429:
        told = answer.header(b"retry-after")
        retry_after_s = float(told) if told.isdigit() else 1.0
        return QueueFull("The engine takes no more requests now.", evidence=message, retry_after_s=retry_after_s)
    if answer.status in (404, 405):
        return NotSupported("The engine of this model does not offer this.", evidence=message)
    return EngineFailed(
        "The engine failed on this request.",
        evidence=f"HTTP {answer.status}: {message}",
        fix="Try again once; if it stays, see `headrace logs`.",
    )


async def read_whole(call: Call, answer: UpstreamAnswer, *, limit_bytes: int | None = None) -> bytes:
    """The whole body of an answer, or as much of it as the limit allows.

    Raises:
        EngineBrokeOff: It does not come to its end.
        EngineStalled: It stood still.
    """
    pieces, size = [], 0
    try:
        while (limit_bytes is None or size < limit_bytes) and (piece := await answer.read()):
            pieces.append(piece)
            size += len(piece)
    except BrokeOff as error:
        raise broke_off(call, error) from error
    return b"".join(pieces)


def broke_off(call: Call, error: BrokeOff) -> EngineBrokeOff | EngineStalled:
    """What the client is told when an answer breaks off."""
    external_host = call.deployed.external_host
    if isinstance(error, Stalled):
        who = f"The external server {external_host}" if external_host else f"The engine of {call.pool.name}"
        return EngineStalled(
            f"{who} stood still in the middle of its answer.",
            evidence=str(error),
            fix="Send the request again. Where such pauses are to be expected: `headrace serve --stall-timeout`.",
        )
    if external_host:
        return EngineBrokeOff(
            f"The external server {external_host} ended in the middle of its answer.",
            evidence=str(error),
            fix="Send the request again.",
        )
    return EngineBrokeOff(
        f"The engine of {call.pool.name} ended in the middle of its answer.",
        evidence=str(error),
        fix="Send the request again; the engine is being replaced. `headrace logs` keeps its last words.",
    )


def broken_event(error: HeadraceError) -> bytes:
    """The last event of a stream that broke off, in the shape in which OpenAI's clients raise it.

    What would be the status and ``Retry-After`` of an answer that has not begun stands in it as well.
    """
    status, body = openai_error(error)
    told = body["error"] | {"status": status, "evidence": error.evidence, "fix": error.fix}
    if error.retry_after_s is not None:
        told["retry_after_s"] = math.ceil(error.retry_after_s)
    return event(msgspec.json.encode({"error": told}))


async def _relay_document(exchange: Exchange, call: Call, answer: UpstreamAnswer) -> None:
    """Hold an answer until it is complete, if it is not too long for that; else stream it."""
    record, finder = call.record, UsageFinder()
    headers = [_content_type(answer), *call.headers]
    held: list[bytes] = []
    held_bytes = 0
    record.status = answer.status
    try:
        while not answer.over and (piece := await answer.read()):
            finder.feed(piece)
            record.bytes_sent += len(piece)
            if exchange.started:
                await exchange.write(piece)
                continue
            held.append(piece)
            held_bytes += len(piece)
            if held_bytes > call.limits.held_answer_bytes:
                await exchange.start(answer.status, headers)
                await exchange.write(b"".join(held))
    except BrokeOff as error:
        raise broke_off(call, error) from error
    call.meter.add(finder.usage())
    call.meter.finish()
    whole = b"".join(held)
    if record.recording is not None:
        record.recording.answer(whole, whole=not exchange.started)
    if exchange.started:
        await exchange.end()
    else:
        await exchange.answer(answer.status, headers, whole)


def _content_type(answer: UpstreamAnswer) -> tuple[bytes, bytes]:
    return b"content-type", answer.header(b"content-type") or b"application/octet-stream"
