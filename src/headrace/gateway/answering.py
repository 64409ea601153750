"""Answers that the gateway makes itself, in the shape that the path's clients read."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from headrace.gateway.exchange import Exchange
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_head import Headers
from headrace.resources.errors import Draining, HeadraceError, KeyLimited, MethodNotAllowed, TooLarge, Unauthenticated

LAST_WORDS_TIMEOUT_S = 1.0
"""For a client that does not read: its connection is broken all the same."""

ErrorShape: TypeAlias = Callable[[HeadraceError], tuple[int, dict[str, Any]]]
"""HTTP status and body of an error, as some clients read it."""

JSON = (b"content-type", b"application/json")

_IN_VAIN = (b"x-should-retry", b"false")
"""What OpenAI's clients obey: 429 and 5xx alone they would send twice again."""


async def send_json(
    exchange: Exchange, record: RequestRecord, value: Any, *, status: int = 200, headers: Headers | None = None
) -> None:
    """Answer with a JSON document. `headers` may have the request's id, or not."""
    body = msgspec.json.encode(value)
    record.status = status
    record.bytes_sent += len(body)
    if record.recording is not None:
        record.recording.answer(body)
    request_id = (b"x-request-id", record.request_id.encode("ascii"))
    others = [header for header in headers or () if header[0] != b"x-request-id"]
    await exchange.answer(status, [JSON, request_id, *others], body)


async def send_text(exchange: Exchange, record: RequestRecord, text: bytes, content_type: bytes) -> None:
    """Answer with lines of text."""
    record.status = 200
    record.bytes_sent += len(text)
    request_id = (b"x-request-id", record.request_id.encode("ascii"))
    await exchange.answer(200, [(b"content-type", content_type), request_id], text)


async def send_error(exchange: Exchange, record: RequestRecord, error: HeadraceError, shape: ErrorShape) -> None:
    """Answer with an error, in this shape; where an answer has begun, break it off with its last words."""
    record.code = error.code
    if exchange.started:
        await _break_off(exchange, error)
        return
    status, body = shape(error)
    headers: Headers = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed) and error.allow:
        headers.append((b"allow", ", ".join(error.allow).encode("ascii")))
    if isinstance(error, KeyLimited):
        headers += error.headers
    if error.lasting:
        headers.append(_IN_VAIN)
    if isinstance(error, Draining | TooLarge):  # the rest of a body that is too large is not read
        headers.append((b"connection", b"close"))
    await send_json(exchange, record, body, status=status, headers=headers)


async def _break_off(exchange: Exchange, error: HeadraceError) -> None:
    try:
        if exchange.last_words is not None and not exchange.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_TIMEOUT_S):
                    await exchange.write(exchange.last_words(error))
    finally:
        exchange.abort()
