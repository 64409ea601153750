"""What Prometheus reads from an engine, under vLLM's names so that its dashboards and autoscalers fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from headrace_engines.serving.generator import Load

EndReason = Literal["stop", "length", "abort", "error"]
"""How a request ended: as on the wire, or because its reader left or its computation failed."""

# vLLM's own buckets (vllm/v1/metrics/loggers.py), in seconds.
_FIRST_TOKEN_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_INTER_TOKEN_BUCKETS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
_REQUEST_BUCKETS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class Metrics:
    """The counters of one engine process.

    Args:
        model: Value of the label ``model_name``.
        load: Read at each scrape.
    """

    def __init__(self, model: str, load: Callable[[], Load]) -> None:
        self._registry = CollectorRegistry()
        for name, text, read in (
            ("vllm:num_requests_running", "Requests being computed.", lambda: load().running),
            ("vllm:num_requests_waiting", "Requests waiting.", lambda: load().waiting),
            ("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", lambda: load().kv_cache_used),
        ):
            Gauge(name, text, ["model_name"], registry=self._registry).labels(model).set_function(read)
        self.first_token = Histogram(
            "vllm:time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            ["model_name"],
            buckets=_FIRST_TOKEN_BUCKETS_S,
            registry=self._registry,
        ).labels(model)
        self.inter_token = Histogram(
            "vllm:inter_token_latency_seconds",
            "Between one token of a request and the next.",
            ["model_name"],
            buckets=_INTER_TOKEN_BUCKETS_S,
            registry=self._registry,
        ).labels(model)
        self.latency = Histogram(
            "vllm:e2e_request_latency_seconds",
            "From a request's arrival to its end.",
            ["model_name"],
            buckets=_REQUEST_BUCKETS_S,
            registry=self._registry,
        ).labels(model)
        self.prompt_tokens = Counter(
            "vllm:prompt_tokens", "Prompt tokens accepted.", ["model_name"], registry=self._registry
        ).labels(model)
        self.generation_tokens = Counter(
            "vllm:generation_tokens", "Tokens generated.", ["model_name"], registry=self._registry
        ).labels(model)
        finished = Counter(
            "vllm:request_success",
            "Requests ended, by reason.",
            ["model_name", "finished_reason"],
            registry=self._registry,
        )
        reasons: tuple[EndReason, ...] = ("stop", "length", "abort", "error")
        self.ended = {reason: finished.labels(model, reason) for reason in reasons}

    def embedded(self, tokens: int, duration_s: float) -> None:
        """A request for embeddings was answered."""
        self.prompt_tokens.inc(tokens)
        self.latency.observe(duration_s)
        self.ended["stop"].inc()

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class RequestMeter:
    """Times and counts one sequence from its request's arrival on."""

    def __init__(self, metrics: Metrics, *, arrived_s: float) -> None:
        self._metrics = metrics
        self._arrived_s = self._last_s = arrived_s
        self._first = True
        self._over = False

    def tokens(self, count: int) -> None:
        """Tokens came."""
        now_s = time.monotonic()
        if self._first:
            self._first = False
            self._metrics.first_token.observe(now_s - self._last_s)
        else:
            self._metrics.inter_token.observe((now_s - self._last_s) / count)
        self._last_s = now_s
        self._metrics.generation_tokens.inc(count)

    def ended(self, reason: EndReason) -> None:
        """The sequence is over; only the first call counts."""
        if not self._over:
            self._over = True
            self._metrics.latency.observe(time.monotonic() - self._arrived_s)
            self._metrics.ended[reason].inc()
