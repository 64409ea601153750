"""What Prometheus reads from an engine, under vLLM's names so that its dashboards and autoscalers fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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


_TOKENS_PER_REQUEST_BUCKETS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))


class Metrics:
    """The counters of one engine process: each is vLLM 0.32.0's by name and kind (vllm/v1/metrics/loggers.py).

    Args:
        model: Value of the label ``model_name``.
        load: Read at each scrape.
    """

    def __init__(self, model: str, load: Callable[[], Load]) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        for name, text, read in (
            ("vllm:num_requests_running", "Requests being computed.", lambda: load().running),
            ("vllm:num_requests_waiting", "Requests waiting.", lambda: load().waiting),
            ("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", lambda: load().kv_cache_used),
        ):
            Gauge(name, text, ["model_name"], registry=self._registry).labels(model).set_function(read)
        seen = self._histogram
        self.first_token = seen(
            "time_to_first_token_seconds", "From a request's arrival to its first token.", _FIRST_TOKEN_BUCKETS_S
        )
        self.inter_token = seen(
            "inter_token_latency_seconds", "Between one token of a request and the next.", _INTER_TOKEN_BUCKETS_S
        )
        self.latency = seen("e2e_request_latency_seconds", "From a request's arrival to its end.")
        self.queue = seen("request_queue_time_seconds", "From a request's submission to its first computation.")
        self.prefill = seen("request_prefill_time_seconds", "From a request's first computation to its first token.")
        self.decode = seen("request_decode_time_seconds", "From a request's first token to its last.")
        self.inference = seen("request_inference_time_seconds", "From a request's first computation to its last token.")
        self.prompt_sizes = seen("request_prompt_tokens", "Tokens of a prompt.", _TOKENS_PER_REQUEST_BUCKETS)
        self.answer_sizes = seen("request_generation_tokens", "Tokens of an answer.", _TOKENS_PER_REQUEST_BUCKETS)
        self.prompt_tokens = Counter(
            "vllm:prompt_tokens", "Prompt tokens computed.", ["model_name"], registry=self._registry
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

    def _histogram(self, name: str, text: str, buckets: Sequence[float] = _REQUEST_BUCKETS_S) -> Histogram:
        whole = Histogram(f"vllm:{name}", text, ["model_name"], buckets=buckets, registry=self._registry)
        return whole.labels(self._model)

    def embedded(self, duration_s: float) -> None:
        """A request for embeddings was answered; its tokens were counted as they were computed."""
        self.latency.observe(duration_s)
        self.ended["stop"].inc()

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class RequestMeter:
    """Times and counts one sequence from its request's arrival on.

    Args:
        metrics: Where to.
        arrived_s: When the request came, on the monotonic clock.
        prompt_tokens: Tokens of the sequence's prompt.
        computes_prompt: Whether they are counted as computed once its first token comes; of several answers to one
            prompt only the first does.
    """

    def __init__(self, metrics: Metrics, *, arrived_s: float, prompt_tokens: int, computes_prompt: bool = True) -> None:
        self._metrics = metrics
        self._arrived_s = self._last_s = arrived_s
        self._prompt_tokens = prompt_tokens
        self._computes_prompt = computes_prompt
        self._began_s: float | None = None
        self._queued_s: float | None = None
        self._first_s: float | None = None
        self._tokens = 0
        self._over = False

    def began(self, at_s: float | None, queued_s: float | None) -> None:
        """Its first computation began then, after so long a wait; None while the engine has not told."""
        self._began_s, self._queued_s = at_s, queued_s

    def tokens(self, count: int) -> None:
        """Tokens came."""
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
            self._metrics.first_token.observe(now_s - self._last_s)
            if self._computes_prompt:
                self._metrics.prompt_tokens.inc(self._prompt_tokens)
        else:
            self._metrics.inter_token.observe((now_s - self._last_s) / count)
        self._last_s = now_s
        self._tokens += count
        self._metrics.generation_tokens.inc(count)

    def ended(self, reason: EndReason) -> None:
        """The sequence is over; only the first call counts."""
        if self._over:
            return
        self._over = True
        self._metrics.latency.observe(time.monotonic() - self._arrived_s)
        self._metrics.ended[reason].inc()
        self._metrics.prompt_sizes.observe(self._prompt_tokens)
        self._metrics.answer_sizes.observe(self._tokens)
        self._observe_phases()

    def _observe_phases(self) -> None:
        """As vLLM does once a request ends; one that got no token had none of them to the end."""
        if self._first_s is None:
            return
        self._metrics.decode.observe(self._last_s - self._first_s)
        if self._began_s is None or self._queued_s is None:
            return
        self._metrics.queue.observe(self._queued_s)
        self._metrics.prefill.observe(max(0.0, self._first_s - self._began_s))
        self._metrics.inference.observe(max(0.0, self._last_s - self._began_s))
