"""Everything that is not inference goes to the control plane, which authenticates by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from headrace.gateway.exchange import Exchange
from headrace.gateway.limits import Limits
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_head import Headers, RequestHead
from headrace.gateway.upstream import (
    BrokeOff,
    NoAnswer,
    TimedOut,
    Unreachable,
    Untrusted,
    Upstream,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
)
from headrace.resources.errors import ControlPlaneDown

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, section 7.6.1: they speak of one connection, not of the message."""

_REPLACED = frozenset(
    {
        b"host",
        b"content-length",
        b"expect",
        b"forwarded",
        b"x-request-id",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    }
)
"""Headers of the request that are ours to say: framing, and where the request came from, which no client may forge."""

UPLOADS = b"/api/2.0/fs/files/"
"""Below it files are uploaded. They pass through like every body for control, a piece at a time; but what control
answers comes after the last byte, which may be hours after the first. A client that stops sending is told so by the
HTTP server (408), whose patience is half a minute."""

UPLOAD_TIMEOUT_S = 24 * 3600.0

_OF_THE_SERVER = frozenset({b"date", b"server", b"x-request-id"})
REPEATABLE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2. Others are never sent twice, so they get a connection of their own."""


_READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""What changes nothing (RFC 9110, section 9.2.1), so that it may be sent to the next control, too."""

_LOOK_AGAIN_S = 0.05


async def forward_to_control(exchange: Exchange, record: RequestRecord, control: Upstream, limits: Limits) -> None:
    """Pass a request on, body and answer streaming. It waits for a control that has just been started.

    Raises:
        ControlPlaneDown: Control does not answer.
    """
    timeout_s = limits.control_timeout_s
    request = await _request(exchange, record)
    if is_upload(exchange.head):
        timeout_s = max(timeout_s, UPLOAD_TIMEOUT_S)
    try:
        answer = await _answer(control, request, timeout_s, returns_s=limits.control_returns_s)
    except UpstreamError as error:
        raise _control_down(exchange.head, error) from error
    async with answer:
        record.status = answer.status
        record.first_byte()
        bodiless = exchange.head.method == "HEAD" or answer.status in (204, 304)
        await exchange.start(answer.status, _answer_headers(answer, record))
        if bodiless:
            await exchange.end()
            return
        try:
            while piece := await answer.read():
                record.chunks += 1
                record.bytes_sent += len(piece)
                await exchange.write(piece)
        except BrokeOff as error:
            raise _control_down(exchange.head, error) from error
        await exchange.end()


async def _answer(control: Upstream, request: UpstreamRequest, timeout_s: float, *, returns_s: float) -> UpstreamAnswer:
    """Control's answer. What cannot have reached it, or changes nothing, is sent to the one that comes next, too."""
    until = time.monotonic() + returns_s
    while True:
        try:
            return await control.send(request, timeout_s=timeout_s)
        except (Unreachable, NoAnswer) as error:
            harmless = isinstance(error, Unreachable) or (request.method in _READING and request.body == b"")
            if isinstance(error, Untrusted) or not harmless or time.monotonic() >= until:
                raise
        await asyncio.sleep(_LOOK_AGAIN_S)


def is_upload(head: RequestHead) -> bool:
    """Whether a request brings a file, of whatever size: it takes as long as it takes, as long as its client sends."""
    return head.method == "PUT" and head.target.startswith(UPLOADS)


async def _request(exchange: Exchange, record: RequestRecord) -> UpstreamRequest:
    head = exchange.head
    first = await exchange.read()
    length_bytes = head.content_length_bytes
    target = head.target + b"?" + head.query if head.query else head.target
    forwarded = [
        (b"x-request-id", record.request_id.encode("ascii")),
        (b"x-forwarded-for", head.client.encode("ascii")),
        (b"x-forwarded-proto", head.scheme.encode("ascii")),
        (b"x-forwarded-host", head.header(b"host") or b""),
    ]
    headers = [*end_to_end(head.headers, _REPLACED), *forwarded]
    body: bytes | AsyncIterator[bytes] = _rest_of(exchange, first)
    if not first or len(first) == length_bytes:
        await exchange.read()  # its end
        body = first
    return UpstreamRequest(
        method=head.method,
        target=target,
        headers=headers,
        host=head.header(b"host"),
        body=body,
        length_bytes=length_bytes,
        repeatable=head.method in REPEATABLE_METHODS,
    )


async def _rest_of(exchange: Exchange, first: bytes) -> AsyncIterator[bytes]:
    yield first
    async for piece in exchange.body():
        yield piece


def end_to_end(headers: Headers, but: frozenset[bytes]) -> Headers:
    """The headers that speak of the message, without those that speak of one connection, and without `but`."""
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    dropped = HOP_BY_HOP | named | but
    return [(name, value) for name, value in headers if name not in dropped]


def _answer_headers(answer: UpstreamAnswer, record: RequestRecord) -> Headers:
    framing = frozenset({b"content-length"}) if answer.status in (204, 304) else frozenset()
    headers = end_to_end(answer.headers, _OF_THE_SERVER | framing)
    return [*headers, (b"x-request-id", record.request_id.encode("ascii"))]


def _control_down(head: RequestHead, error: UpstreamError) -> ControlPlaneDown:
    if isinstance(error, Unreachable):
        message = "The control plane cannot be reached; inference goes on."
    elif isinstance(error, TimedOut):
        message = "The control plane did not answer in time; inference goes on."
    else:
        message = "The control plane broke off this request; inference goes on."
    unsure = isinstance(error, Unreachable) or head.method in _READING
    fix = "Try again in a few seconds." if unsure else "It may have been carried out: look before you send it again."
    return ControlPlaneDown(message, evidence=str(error), fix=fix, retry_after_s=2.0)
