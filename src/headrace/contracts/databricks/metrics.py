"""Metrics of one endpoint, as Prometheus reads them: under the vendor's names, and what the gateways count under ours.

The vendor's names and units are those of
https://docs.databricks.com/en/machine-learning/model-serving/metrics-export-serving-endpoint.html.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_REQUESTS = "headrace_gateway_requests"
_LATENCY = "headrace_gateway_request_seconds"
_MS = 1000.0


class ReplicaMetrics(NamedTuple):
    """What is known of one replica.

    Attributes:
        served: The served entity that it answers for.
        ready: Whether it answers.
        resident_bytes: What its engine's processes held when it had warmed up.
        share: Of the machine's memory, from 0 to 1; None where that is not known.
    """

    served: str
    replica: str
    ready: bool
    resident_bytes: int
    share: float | None


class ProvisionMetrics(NamedTuple):
    """The throughput that a served entity was sold, in tokens a second."""

    served: str
    least: int
    most: int


class EndpointFacts(NamedTuple):
    """What is known of an endpoint itself.

    Attributes:
        endpoint_id: By which gateways count.
        deployments: What stands behind it, by which they count, too.
    """

    name: str
    endpoint_id: str
    deployments: Collection[str]
    replicas: Sequence[ReplicaMetrics] = ()
    provisions: Sequence[ProvisionMetrics] = ()


def endpoint_metrics(endpoint: EndpointFacts, told: Sequence[str]) -> bytes:
    """The text.

    Args:
        endpoint: Which one.
        told: What each gateway tells of everything, in Prometheus's text.
    """
    families = _ours(told, endpoint.endpoint_id, endpoint.deployments)
    known = _gauges(endpoint.name, endpoint.replicas, endpoint.provisions)
    registry = CollectorRegistry()
    registry.register(_Several([*_vendors(endpoint.name, families), *known, *families.values()]))
    return generate_latest(registry)


class _Several(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._families


def _ours(told: Sequence[str], endpoint_id: str, deployments: Collection[str]) -> dict[str, Metric]:
    """What gateways count of the endpoint and of what stands behind it, each series with its gateway's number."""
    found: dict[str, Metric] = {}
    for number, text in enumerate(told):
        for family in text_string_to_metric_families(text):
            ours = [
                sample._replace(labels={**sample.labels, "gateway": str(number)})
                for sample in family.samples
                if _is_of(sample.labels, endpoint_id, deployments)
            ]
            if ours:
                whole = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                whole.samples += ours
    return found


def _is_of(labels: Mapping[str, str], endpoint_id: str, deployments: Collection[str]) -> bool:
    if "endpoint" in labels:
        return labels["endpoint"].rpartition("/")[2] == endpoint_id
    return labels.get("deployment") in deployments


def _vendors(name: str, families: Mapping[str, Metric]) -> Iterator[Metric]:
    by_status: dict[int, float] = {}
    for sample in families[_REQUESTS].samples if _REQUESTS in families else ():
        if sample.name.endswith("_total"):
            status = int(sample.labels["status"])
            by_status[status] = by_status.get(status, 0.0) + sample.value
    for metric, about, least, below in (
        ("request_count", "Requests that were answered.", 0, 1000),
        ("request_4xx_count", "Requests that were refused.", 400, 500),
        ("request_5xx_count", "Requests that failed.", 500, 600),
    ):
        counter = CounterMetricFamily(metric, about, labels=["endpoint_name"])
        counter.add_metric([name], sum(count for status, count in by_status.items() if least <= status < below))
        yield counter
    if _LATENCY in families:
        yield _latency(name, families[_LATENCY])


def _latency(name: str, family: Metric) -> Metric:
    """The sum of the gateways' histograms, in milliseconds."""
    buckets: dict[float, float] = {}
    total = 0.0
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            edge = float(sample.labels["le"])
            buckets[edge] = buckets.get(edge, 0.0) + sample.value
        elif sample.name.endswith("_sum"):
            total += sample.value
    whole = HistogramMetricFamily("request_latency_ms", "From arrival to the last byte.", labels=["endpoint_name"])
    edges = [("+Inf" if edge == float("inf") else f"{edge * _MS:g}", buckets[edge]) for edge in sorted(buckets)]
    whole.add_metric([name], edges, total * _MS)
    return whole


def _gauges(name: str, replicas: Iterable[ReplicaMetrics], provisions: Iterable[ProvisionMetrics]) -> Iterator[Metric]:
    labels = ["endpoint_name", "served_entity"]
    of_replica = [*labels, "replica"]
    ready = GaugeMetricFamily("headrace_endpoint_replica_ready", "Whether a replica answers.", labels=of_replica)
    memory = GaugeMetricFamily(
        "headrace_endpoint_replica_memory_bytes", "Held by a replica once it had warmed up.", labels=of_replica
    )
    share = GaugeMetricFamily(
        "mem_usage_percentage", "Of the machine's memory, held by a replica once it had warmed up.", labels=of_replica
    )
    for one in replicas:
        ready.add_metric([name, one.served, one.replica], one.ready)
        memory.add_metric([name, one.served, one.replica], one.resident_bytes)
        if one.share is not None:
            share.add_metric([name, one.served, one.replica], one.share * 100)
    least = GaugeMetricFamily("headrace_endpoint_min_provisioned_throughput", "Tokens a second.", labels=labels)
    most = GaugeMetricFamily("headrace_endpoint_max_provisioned_throughput", "Tokens a second.", labels=labels)
    for sold in provisions:
        least.add_metric([name, sold.served], sold.least)
        most.add_metric([name, sold.served], sold.most)
    yield from (ready, memory, share, least, most)
