"""OpenTelemetry spans of inference requests. Imported only where tracing is on: the libraries are the extra ``otel``.

A request's span is a child of whatever the client says in ``traceparent``; below it lie its wait for a turn, the count
of its prompt, and each attempt at a replica, whose span the engine gets as its parent. Ending a span puts it into a
bounded queue; a thread of the library sends them away, drops what is too much, and no request waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from headrace import __version__
from headrace.contracts.vertex.predict import CHAT_PATH, COMPLETIONS_PATH
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_head import Headers, RequestHead
from headrace.gateway.routes import Action, Match

CLOSE_TIMEOUT_S = 3.0

_TRACED: Mapping[Action, str] = {
    Action.CHAT: "chat",
    Action.COMPLETIONS: "text_completion",
    Action.EMBEDDINGS: "embeddings",
    Action.INVOCATIONS: "",
    Action.PREDICT: "",
    Action.RAW_PREDICT: "",
    Action.STREAM_RAW_PREDICT: "",
    Action.GENERATE_CONTENT: "generate_content",
    Action.STREAM_GENERATE_CONTENT: "generate_content",
    Action.COUNT_TOKENS: "",
    Action.TOKENIZE: "",
    Action.DETOKENIZE: "",
}
"""What has spans, and its ``gen_ai.operation.name`` where that is known from its path."""

_OPERATIONS = {CHAT_PATH: "chat", COMPLETIONS_PATH: "text_completion", "/v1/embeddings": "embeddings"}
"""``gen_ai.operation.name`` by the engine's path (semantic conventions for generative AI)."""

_PROPAGATOR = TraceContextTextMapPropagator()
_CONTEXT_HEADERS = (b"traceparent", b"tracestate")
_BELOW_ENDPOINT = "/v1/projects/{project}/locations/{location}/endpoints/{endpoint}"
_INVOCATIONS = "/serving-endpoints/{name}/invocations"


class Tracing:
    """Makes the spans of one gateway.

    Args:
        provider: Where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("headrace.gateway", __version__)

    def begin(self, record: RequestRecord, head: RequestHead, match: Match) -> RequestTrace | None:
        """The spans of a request that came just now; None for what is no inference."""
        if match.action not in _TRACED:
            return None
        return RequestTrace(self._tracer, record, head, match)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what is left; what is not sent in time is lost. Blocks."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-shutdown", daemon=True)
        closing.start()
        closing.join(timeout_s)


class RequestTrace:
    """The spans of one request."""

    __slots__ = ("_children", "_context", "_span", "_started_ns", "_tracer")

    def __init__(self, tracer: Tracer, record: RequestRecord, head: RequestHead, match: Match) -> None:
        self._tracer = tracer
        self._started_ns = time.time_ns() - int((time.monotonic() - record.arrived_s) * 1e9)
        path = _BELOW_ENDPOINT + match.endpoint.method if match.endpoint is not None else record.path
        if match.action is Action.INVOCATIONS:
            path = _INVOCATIONS
        attributes: dict[str, str] = {
            "http.request.method": head.method,
            "http.route": path,
            "url.path": record.path,
            "url.scheme": head.scheme,
            "headrace.request_id": record.request_id,
        }
        if head.client:
            attributes["client.address"] = head.client
        if operation := _TRACED[match.action]:
            attributes["gen_ai.operation.name"] = operation
        parent = _parent(head)
        self._span = tracer.start_span(
            f"{head.method} {path}",
            context=parent,
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=self._started_ns,
        )
        self._context = set_span_in_context(self._span, parent)
        self._children: list[Span] = []

    def begin(self, name: str) -> Span:
        """A part of the work begins; it is over when its span is ended, or with the request."""
        span = self._tracer.start_span(name, context=self._context)
        self._children.append(span)
        return span

    def attempt(self, path: str, model: str, replica: str) -> Attempt:
        """The request goes to a replica now."""
        operation = _OPERATIONS.get(path)
        attributes = {
            "http.request.method": "POST",
            "url.path": path,
            "headrace.replica": replica,
            "gen_ai.provider.name": "headrace",
            "gen_ai.request.model": model,
        }
        if operation is not None:
            attributes["gen_ai.operation.name"] = operation
        name = f"POST {path}" if operation is None else f"{operation} {model}"
        span = self._tracer.start_span(name, context=self._context, kind=SpanKind.CLIENT, attributes=attributes)
        self._children.append(span)
        return Attempt(span, self._context)

    def finish(self, record: RequestRecord) -> None:
        """The request is over."""
        for child in self._children:
            if child.is_recording():
                child.end()
        span = self._span
        if record.first_byte_s is not None:
            since_ns = int((record.first_byte_s - record.arrived_s) * 1e9)
            span.add_event("first token", timestamp=self._started_ns + since_ns)
        span.set_attribute("http.response.status_code", record.status)
        told: dict[str, str | int | None] = {
            "headrace.key_id": record.key_id,
            "headrace.endpoint": record.endpoint,
            "headrace.deployed_model": record.deployed_model,
            "headrace.replica": record.replica,
            "error.type": record.code,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "headrace.chunks": record.chunks,
        }
        span.set_attributes({name: value for name, value in told.items() if value})
        if record.status >= 500 or (record.status < 400 and record.code not in ("", "CLIENT_LEFT")):
            span.set_status(StatusCode.ERROR, record.code)
        span.end()


class Attempt:
    """One attempt at a replica."""

    __slots__ = ("_context", "_span")

    def __init__(self, span: Span, context: Context) -> None:
        self._span = span
        self._context = set_span_in_context(span, context)

    def marked(self, headers: Headers) -> Headers:
        """The headers for the engine, with this attempt as its parent in place of the client's span."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, self._context)
        others = [header for header in headers if header[0] not in _CONTEXT_HEADERS]
        return [*others, *((name.encode("ascii"), value.encode("ascii")) for name, value in carrier.items())]

    def answered(self, status: int) -> None:
        """The engine has begun its answer."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= 400:
            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", str(status))

    def failed(self, why: str) -> None:
        """There is no answer, or half of one."""
        self._span.set_status(StatusCode.ERROR)
        self._span.set_attribute("error.type", why)

    def end(self) -> None:
        """The answer is over, or there will be none."""
        if self._span.is_recording():
            self._span.end()


def _parent(head: RequestHead) -> Context:
    """What the client says of its own span; nothing if it says nothing that can be read."""
    carrier: dict[str, str] = {}
    for name, value in head.headers:
        if name in _CONTEXT_HEADERS:
            key, text = name.decode("ascii"), value.decode("latin-1")
            carrier[key] = f"{carrier[key]},{text}" if key in carrier else text
    return _PROPAGATOR.extract(carrier, Context())
