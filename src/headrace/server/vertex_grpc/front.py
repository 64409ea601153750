"""Takes calls of gRPC, and has a gateway answer them.

A call that its client cancels, or whose deadline passes, is cancelled here by gRPC, and with it the request: the
gateway sees its connection close, and stops the engine's work. A client that reads slowly is waited for, piece by
piece, and so is then the gateway.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import grpc
import msgspec
from google.rpc import status_pb2
from grpc_status import rpc_status

from headrace.contracts.vertex.errors import google_error
from headrace.gateway.upstream import BrokeOff, TimedOut, Upstream, UpstreamAnswer, UpstreamError, UpstreamRequest
from headrace.resources.errors import EngineBrokeOff, EngineTimeout, HeadraceError, InternalError, ServerUnreachable
from headrace.server.vertex_grpc.metadata import answer_metadata, request_headers
from headrace.server.vertex_grpc.methods import Method
from headrace.server.vertex_grpc.statuses import status_of
from headrace.server.vertex_grpc.streams import documents
from headrace.server.vertex_grpc.transcoding import is_http_body, read_answer, read_request, transcode

_LOGGER = logging.getLogger(__name__)

PATIENCE_S = 3600.0
"""For an answer to begin where the client has no deadline. The gateway's own deadlines are shorter."""

MESSAGE_BYTES = 32 * 2**20 + 64 * 2**10
"""What a call may bring: a body as large as a gateway takes, and what surrounds it."""

LARGE_BYTES = 256 * 1024
"""Messages from this size on are translated in a thread: that takes a tenth of a second for a megabyte of JSON, in
which nobody else would be answered."""

T = TypeVar("T")

GOOGLES_NAME = "aiplatform.googleapis.com"

_REGION = re.compile(rb"/locations/([a-z0-9-]{1,40})(?=[/:?]|$)")

_ONCE = (("alt", "json"),)
"""Whole answers are asked for in the form that the messages have: one chat's predictions are a list, then."""

_STREAMED = (("alt", "sse"),)
"""Streams of messages are asked for as events, as Google's own clients do over REST."""


class Refused(Exception):
    """A call that ends with an error.

    Attributes:
        status: The error.
        metadata: What goes out with it.
    """

    def __init__(self, status: status_pb2.Status, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status.message)
        self.status = status
        self.metadata = metadata


class Front(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers calls.

    Args:
        methods: Those that there are, by their paths.
        gateway: Where they are sent on to.
        https: Host and port by which clients reach the gateway with TLS: answers name it as dedicated endpoints' own.
            gRPC for Python does not tell by which name a client has come.
    """

    def __init__(self, methods: Mapping[str, Method], gateway: Upstream, https: str = "localhost") -> None:
        self._methods = methods
        self._gateway = gateway
        self._https = https

    def service(self, handler_call_details: Any) -> Any:
        """What answers a call; None for a method that there is not (gRPC says so)."""
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None

        async def once(raw: bytes, context: Any) -> bytes:
            answered: bytes = await self._ended(self._once(method, raw, context), context)
            return answered

        async def streamed(raw: bytes, context: Any) -> None:
            await self._ended(self._streamed(method, raw, context), context)

        if method.streams:
            return grpc.unary_stream_rpc_method_handler(streamed)
        return grpc.unary_unary_rpc_method_handler(once)

    async def _ended(self, answering: Any, context: Any) -> Any:
        """What answers a call, with its end where that is an error."""
        try:
            return await answering
        except Refused as error:
            refused = error
        except HeadraceError as error:
            refused = _refused(error)
        except UpstreamError as error:
            refused = _refused(_without_answer(error))
        except Exception:
            _LOGGER.exception("a call failed")
            refused = _refused(InternalError("The call failed.", evidence="logs/grpc.log says more."))
        status = rpc_status.to_status(refused.status)
        await context.abort(status.code, status.details, (*status.trailing_metadata, *refused.metadata))
        raise AssertionError("abort raises")

    async def _once(self, method: Method, raw: bytes, context: Any) -> bytes:
        async with await self._send(method, raw, context, _ONCE) as answer:
            body = await _whole(answer)
            await context.send_initial_metadata(answer_metadata(answer.headers))
            content_type = _content_type(answer)
            return await _translated(len(body), lambda: _bytes_of(read_answer(method, body, content_type)))

    async def _streamed(self, method: Method, raw: bytes, context: Any) -> None:
        as_it_is = is_http_body(method)
        async with await self._send(method, raw, context, () if as_it_is else _STREAMED) as answer:
            await context.send_initial_metadata(answer_metadata(answer.headers))
            content_type = _content_type(answer)
            pieces = _pieces(answer) if as_it_is else _documents(answer, content_type)
            async for piece in pieces:
                await context.write(_bytes_of(read_answer(method, piece, content_type)))

    async def _send(
        self, method: Method, raw: bytes, context: Any, query: tuple[tuple[str, str], ...]
    ) -> UpstreamAnswer:
        """The answer of the gateway, once it has begun.

        Raises:
            Refused: It is an error.
            HeadraceError: The message cannot be sent on.
            UpstreamError: There is no answer.
        """
        call = await _translated(len(raw), lambda: transcode(method, read_request(method, raw), query=query))
        left_s = context.time_remaining()
        headers = request_headers(context.invocation_metadata() or (), left_s)
        if call.content_type:
            headers.append((b"content-type", call.content_type.encode("ascii")))
        request = UpstreamRequest(
            method=call.verb,
            target=call.target,
            headers=headers,
            host=self._host(context, call.target).encode("ascii"),
            body=call.body,
            repeatable=call.verb == "GET",
        )
        answer = await self._gateway.send(request, timeout_s=PATIENCE_S if left_s is None else left_s)
        if answer.status < 300:
            return answer
        async with answer:
            status = status_of(answer.status, await _whole(answer))
            raise Refused(status, answer_metadata(answer.headers))

    def _host(self, context: Any, target: bytes) -> str:
        """By what name the gateway is asked: of clients that have come through the proxy, by Google's."""
        if not context.peer().startswith("unix:"):
            return self._https
        region = _REGION.search(target)
        return f"{region[1].decode()}-{GOOGLES_NAME}" if region else GOOGLES_NAME


async def _translated(size_bytes: int, work: Callable[[], T]) -> T:
    return work() if size_bytes < LARGE_BYTES else await asyncio.to_thread(work)


def _bytes_of(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _content_type(answer: UpstreamAnswer) -> str:
    return answer.header(b"content-type").decode("latin-1")


async def _pieces(answer: UpstreamAnswer) -> AsyncIterator[bytes]:
    while piece := await answer.read():
        yield piece


async def _whole(answer: UpstreamAnswer) -> bytes:
    return b"".join([piece async for piece in _pieces(answer)])


async def _documents(answer: UpstreamAnswer, content_type: str) -> AsyncIterator[bytes]:
    """The documents of a stream, as they become whole.

    Raises:
        Refused: One of them says that the stream failed.
    """
    found = documents(content_type)
    async for piece in _pieces(answer):
        for document in found.feed(piece):
            yield _sound(document)
    for document in found.rest():
        yield _sound(document)


class _Said(msgspec.Struct):
    """What is looked for in a document."""

    error: Any = None


def _sound(document: bytes) -> bytes:
    try:
        failed = msgspec.json.decode(document, type=_Said).error is not None
    except (msgspec.MsgspecError, UnicodeDecodeError):  # read_answer says what is wrong with it
        failed = False
    if failed:
        raise Refused(status_of(503, document))
    return document


def _refused(error: HeadraceError) -> Refused:
    code, body = google_error(error)
    return Refused(status_of(code, msgspec.json.encode(body)))


def _without_answer(error: UpstreamError) -> HeadraceError:
    if isinstance(error, TimedOut):
        return EngineTimeout("No answer began within the call's deadline.", evidence=str(error))
    if isinstance(error, BrokeOff):
        return EngineBrokeOff("The answer did not come to its end.", evidence=str(error))
    return ServerUnreachable("The gateway gives no answer.", evidence=str(error), fix="Try again in a moment.")
