"""Prometheus metrics of the gateway. Label sets are bounded: endpoints and deployments of the newest snapshot only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.gateway.buckets import INTER_TOKEN_S, REQUEST_S, Buckets
from headrace.gateway.fleet import Fleet
from headrace.gateway.metric_families import Families
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_log import RequestLogger
from headrace.gateway.throughputs import Throughputs
from headrace.gateway.usage_log import UsageLog
from headrace.resources.work import MICROS, MINUTE_S

_NAME = "headrace_gateway"


class _EndpointMetrics:
    """What is counted of one endpoint."""

    def __init__(self) -> None:
        self.by_status: dict[int, int] = {}
        self.first_byte_s, self.duration_s, self.queue_s = Buckets(REQUEST_S), Buckets(REQUEST_S), Buckets(REQUEST_S)
        self.gaps = Buckets(INTER_TOKEN_S)
        self.chunks = self.prompt_tokens = self.completion_tokens = 0


class Metrics:
    """Counts every request once, when it is over."""

    def __init__(self, fleet: Fleet, usage_log: UsageLog, request_log: RequestLogger, throughputs: Throughputs) -> None:
        self.registry = CollectorRegistry()
        self._endpoints: dict[str, _EndpointMetrics] = {}
        self.registry.register(_Requests(self._endpoints))
        self.registry.register(_FleetGauges(fleet))
        self.registry.register(_UsageLogFailures(usage_log))
        self.registry.register(_RequestLog(request_log))
        self.registry.register(_Provisioned(throughputs))

    def settle(self, record: RequestRecord) -> None:
        """Count a request that is over."""
        counts = self._endpoints.get(record.endpoint)
        if counts is None:
            counts = self._endpoints[record.endpoint] = _EndpointMetrics()
        counts.by_status[record.status] = counts.by_status.get(record.status, 0) + 1
        counts.duration_s.observe(time.monotonic() - record.arrived_s)
        if record.first_byte_s is not None:
            counts.first_byte_s.observe(record.first_byte_s - record.arrived_s)
        if record.sent_s is not None:
            counts.queue_s.observe(record.sent_s - record.routed_s)
        if record.gaps is not None:
            counts.gaps.add(record.gaps)
        counts.chunks += record.chunks
        counts.prompt_tokens += record.prompt_tokens or 0
        counts.completion_tokens += record.completion_tokens or 0

    def keep_only(self, endpoints: Iterable[str]) -> None:
        """Forget the endpoints that are gone; the empty name stands for what is not inference."""
        for endpoint in self._endpoints.keys() - {"", *endpoints}:
            del self._endpoints[endpoint]

    async def render(self) -> bytes:
        """Prometheus's text format; written beside the event loop, for streams wait while that does anything long."""
        return await asyncio.to_thread(_text, list(self.registry.collect()))


def _text(told: Iterable[Metric]) -> bytes:
    families = Families()
    families.add(told)
    return families.text()


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


class _Requests(Collector):
    """What was counted of requests, by endpoint."""

    def __init__(self, endpoints: Mapping[str, _EndpointMetrics]) -> None:
        self._endpoints = endpoints

    def collect(self) -> Iterator[Metric]:
        """Their number, their times and their tokens."""
        requests = CounterMetricFamily(f"{_NAME}_requests", "Requests answered.", labels=["endpoint", "status"])
        chunks = CounterMetricFamily(f"{_NAME}_chunks", "Pieces of answers passed on.", labels=["endpoint"])
        tokens = CounterMetricFamily(f"{_NAME}_tokens", "Tokens, where the engine told.", labels=["endpoint", "kind"])
        for endpoint, counts in self._endpoints.items():
            for status, count in counts.by_status.items():
                requests.add_metric([endpoint, str(status)], count)
            chunks.add_metric([endpoint], counts.chunks)
            tokens.add_metric([endpoint, "prompt"], counts.prompt_tokens)
            tokens.add_metric([endpoint, "completion"], counts.completion_tokens)
        yield from (requests, chunks, tokens)
        yield self._times("request_seconds", "Arrival to the last byte.", lambda counts: counts.duration_s)
        yield self._times(
            "first_byte_seconds", "Arrival to the engine's first byte.", lambda counts: counts.first_byte_s
        )
        yield self._times("queue_seconds", "Waiting for a turn at an engine.", lambda counts: counts.queue_s)
        yield self._times(
            "inter_token_latency_seconds",
            "Between pieces of a streamed answer.",
            lambda counts: counts.gaps,
        )

    def _times(self, name: str, told: str, of: Callable[[_EndpointMetrics], Buckets]) -> HistogramMetricFamily:
        family = HistogramMetricFamily(f"{_NAME}_{name}", told, labels=["endpoint"])
        for endpoint, counts in self._endpoints.items():
            family.add_metric([endpoint], of(counts).cumulated(), of(counts).sum_s)
        return family


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


class _Provisioned(Collector):
    """What deployed models were sold, and what of it is used."""

    def __init__(self, throughputs: Throughputs) -> None:
        self._throughputs = throughputs

    def collect(self) -> Iterator[Metric]:
        """Model units of a minute, those that were used at all, and requests that were refused."""
        labels = ["endpoint", "deployed_model"]
        units = GaugeMetricFamily(
            f"{_NAME}_provisioned_units",
            "Model units of the last minute: the most, what is guaranteed, used, and reserved.",
            labels=[*labels, "kind"],
        )
        used = CounterMetricFamily(
            f"{_NAME}_provisioned_units_used", "Model units used, by class.", labels=[*labels, "class"]
        )
        refused = CounterMetricFamily(
            f"{_NAME}_provisioned_refused", "Requests above the throughput that was sold.", labels=labels
        )
        for each in self._throughputs:
            names = [each.endpoint_id, each.deployed_id]
            units.add_metric([*names, "most"], each.limit / MICROS)
            units.add_metric([*names, "guaranteed"], each.provision.guaranteed * MINUTE_S)
            if (budget := self._throughputs.budget_of(each)) is not None:
                budget.now()
                units.add_metric([*names, "used"], budget.tokens.used / MICROS)
                units.add_metric([*names, "reserved"], budget.tokens.held / MICROS)
            used.add_metric([*names, "guaranteed"], each.used[True] / MICROS)
            used.add_metric([*names, "shared"], each.used[False] / MICROS)
            refused.add_metric(names, each.refused)
        yield from (units, used, refused)
