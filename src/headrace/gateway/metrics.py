"""Prometheus metrics of the gateway. Label sets are bounded: endpoints and deployments of the newest snapshot only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.gateway.fleet import Fleet
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_log import RequestLogger
from headrace.gateway.token_gaps import TokenGaps
from headrace.gateway.usage_log import UsageLog

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class _EndpointMetrics:
    """The label children of one endpoint, looked up once."""

    def __init__(self, metrics: Metrics, endpoint: str) -> None:
        self.by_status: dict[int, Counter] = {}
        self.first_byte_s = metrics.first_byte_s.labels(endpoint)
        self.duration_s = metrics.duration_s.labels(endpoint)
        self.queue_s = metrics.queue_s.labels(endpoint)
        self.gaps = TokenGaps()
        self.chunks = metrics.chunks.labels(endpoint)
        self.prompt_tokens = metrics.tokens.labels(endpoint, "prompt")
        self.completion_tokens = metrics.tokens.labels(endpoint, "completion")


class Metrics:
    """Counts every request once, when it is over."""

    def __init__(self, fleet: Fleet, usage_log: UsageLog, request_log: RequestLogger) -> None:
        self.registry = CollectorRegistry()
        name, by = "headrace_gateway", ["endpoint"]
        self.requests = Counter(f"{name}_requests", "Requests answered.", [*by, "status"], registry=self.registry)
        self.first_byte_s = Histogram(
            f"{name}_first_byte_seconds",
            "Arrival to the engine's first byte.",
            by,
            buckets=SECONDS,
            registry=self.registry,
        )
        self.duration_s = Histogram(
            f"{name}_request_seconds", "Arrival to the last byte.", by, buckets=SECONDS, registry=self.registry
        )
        self.queue_s = Histogram(
            f"{name}_queue_seconds", "Waiting for a turn at an engine.", by, buckets=SECONDS, registry=self.registry
        )
        self.chunks = Counter(f"{name}_chunks", "Pieces of answers passed on.", by, registry=self.registry)
        self.tokens = Counter(f"{name}_tokens", "Tokens, where the engine told.", [*by, "kind"], registry=self.registry)
        self._children: dict[str, _EndpointMetrics] = {}
        self.registry.register(_FleetGauges(fleet))
        self.registry.register(_Gaps(self._children))
        self.registry.register(_UsageLogFailures(usage_log))
        self.registry.register(_RequestLog(request_log))

    def settle(self, record: RequestRecord) -> None:
        """Count a request that is over."""
        children = self._children.get(record.endpoint)
        if children is None:
            children = self._children[record.endpoint] = _EndpointMetrics(self, record.endpoint)
        counter = children.by_status.get(record.status)
        if counter is None:
            counter = children.by_status[record.status] = self.requests.labels(record.endpoint, str(record.status))
        counter.inc()
        children.duration_s.observe(time.monotonic() - record.arrived_s)
        if record.first_byte_s is not None:
            children.first_byte_s.observe(record.first_byte_s - record.arrived_s)
        if record.sent_s is not None:
            children.queue_s.observe(record.sent_s - record.routed_s)
        if record.gaps is not None:
            children.gaps.add(record.gaps)
        children.chunks.inc(record.chunks)
        if record.prompt_tokens is not None:
            children.prompt_tokens.inc(record.prompt_tokens)
            children.completion_tokens.inc(record.completion_tokens or 0)

    def keep_only(self, endpoints: Iterable[str]) -> None:
        """Forget the endpoints that are gone; the empty name stands for what is not inference."""
        for endpoint in self._children.keys() - {"", *endpoints}:
            children = self._children.pop(endpoint)
            for status in children.by_status:
                self.requests.remove(endpoint, str(status))
            for metric in (self.first_byte_s, self.duration_s, self.queue_s, self.chunks):
                metric.remove(endpoint)
            self.tokens.remove(endpoint, "prompt")
            self.tokens.remove(endpoint, "completion")

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)


class _FleetGauges(Collector):
    """Reads the fleet when asked, so that nothing needs to be kept in step."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """Running, waiting and repeated requests of each deployment, and its replicas."""
        running = GaugeMetricFamily("headrace_gateway_running", "Requests let in.", labels=["deployment"])
        waiting = GaugeMetricFamily("headrace_gateway_waiting", "Requests in line.", labels=["deployment"])
        replicas = GaugeMetricFamily("headrace_gateway_replicas", "Replicas that take traffic.", labels=["deployment"])
        ejected = GaugeMetricFamily(
            "headrace_gateway_replicas_ejected", "Replicas that failed lately and are spared.", labels=["deployment"]
        )
        retries = CounterMetricFamily(
            "headrace_gateway_retries", "Requests sent to another replica.", labels=["deployment"]
        )
        for deployment_id, pool in self._fleet.pools.items():
            running.add_metric([deployment_id], pool.room.running)
            waiting.add_metric([deployment_id], pool.room.waiting)
            replicas.add_metric([deployment_id], len(pool.replicas))
            ejected.add_metric([deployment_id], sum(not replica.health.trusted for replica in pool.replicas))
            retries.add_metric([deployment_id], pool.retries.spent)
        yield from (running, waiting, replicas, ejected, retries)


class _Gaps(Collector):
    """The gaps of all requests that are over, by endpoint."""

    def __init__(self, children: Mapping[str, _EndpointMetrics]) -> None:
        self._children = children

    def collect(self) -> Iterator[Metric]:
        """One histogram for each endpoint that has any."""
        family = HistogramMetricFamily(
            "headrace_gateway_inter_token_latency_seconds", "Between pieces of a streamed answer.", labels=["endpoint"]
        )
        for endpoint, children in self._children.items():
            if endpoint:
                family.add_metric([endpoint], children.gaps.buckets(), children.gaps.sum_s)
        yield family


class _UsageLogFailures(Collector):
    """Requests that were answered and not counted, because their line could not be written."""

    def __init__(self, usage_log: UsageLog) -> None:
        self._usage_log = usage_log

    def collect(self) -> Iterator[Metric]:
        """The one number."""
        yield CounterMetricFamily(
            "headrace_gateway_usage_log_failures",
            "Requests whose usage could not be written down.",
            value=self._usage_log.failures,
        )


class _RequestLog(Collector):
    """What became of the requests that were to be logged."""

    def __init__(self, request_log: RequestLogger) -> None:
        self._request_log = request_log

    def collect(self) -> Iterator[Metric]:
        """Those that are in files, that found no room on the way there, and that could not be written."""
        family = CounterMetricFamily(
            "headrace_gateway_request_log", "Requests for the request log, by what became of them.", labels=["outcome"]
        )
        log = self._request_log
        counts = (("written", log.writer.written), ("dropped", log.dropped), ("failed", log.writer.failed))
        for outcome, count in counts:
            family.add_metric([outcome], count)
        yield family
