"""Whether a gateway traces, and where to: OpenTelemetry's own environment variables decide, or one option."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

from headrace import __version__
from headrace.resources.extras import install

if TYPE_CHECKING:
    from headrace.gateway.tracing import Tracing

_LOGGER = logging.getLogger(__name__)

_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_ENDPOINTS = (_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def available() -> bool:
    """Whether the extra ``otel`` is installed."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces: by an endpoint, or by ``OTEL_TRACES_EXPORTER=otlp``."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").lower().replace(" ", "")
    return "otlp" in exporters.split(",") if exporters else any(environ.get(name) for name in _ENDPOINTS)


def start_tracing(endpoint: str, environ: MutableMapping[str, str] = os.environ) -> Tracing | None:
    """Begin to trace, if somebody asked for it.

    Args:
        endpoint: Where spans go, as ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` has it; empty: as the environment says.
        environ: The environment.
    """
    if endpoint:
        environ.update({_ENDPOINT: endpoint, "OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"})
    if not wanted(environ):
        return None
    if not available():
        _LOGGER.warning("Traces are asked for by OTEL_…, and cannot be made: %s", install("otel"))
        return None
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        _LOGGER.warning("Traces go out as http/protobuf; %s is not spoken here.", protocol)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    from headrace.gateway.tracing import Tracing  # noqa: PLC0415

    if "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        environ.setdefault("OTEL_SERVICE_NAME", "headrace-gateway")
    provider = TracerProvider(resource=Resource.create({"service.version": __version__}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
