"""A receiver of OpenTelemetry traces: OTLP over HTTP, with protocol buffers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TIMEOUT_S = 30.0
INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, as OTLP counts them."""


class Receiver:
    """What came.

    Attributes:
        url: Its base address.
        mute: Set: it takes requests and does not answer them, until it is cleared.
    """

    def __init__(self) -> None:
        self.url = ""
        self.mute = threading.Event()
        self.services: set[str] = set()
        self._spans: list[Any] = []
        self._more = threading.Condition()

    def spans(self, requests: int, *, kind: int = SERVER) -> list[Any]:
        """Every span that came, once there are so many of a kind; by the time when they began.

        A request's own span ends after all others of it, and they come in the order of their ends.
        """
        with self._more:
            assert self._more.wait_for(lambda: sum(one.kind == kind for one in self._spans) >= requests, TIMEOUT_S)
            return sorted(self._spans, key=lambda span: span.start_time_unix_nano)

    def take(self, body: bytes) -> None:
        """Decode what came."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._more:
            for one in request.resource_spans:
                self.services.add(attributes(one.resource)["service.name"])
                self._spans += [span for scope in one.scope_spans for span in scope.spans]
            self._more.notify_all()


def attributes(holder: Any) -> dict[str, Any]:
    """Of a span or an event."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port of the loopback."""
    receiver = Receiver()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if receiver.mute.is_set():
                over.wait(TIMEOUT_S)
            receiver.take(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
