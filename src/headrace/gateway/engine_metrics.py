"""What engines say of themselves, gathered for Prometheus: under vLLM's names, each series with its replica.

Engines listen on sockets that nobody but us reaches. So one scrape of the gateway brings what all of them say; the
families are a fixed list, and the labels are deployments and replicas of the newest snapshot only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from headrace.gateway.fleet import Fleet, Replica
from headrace.gateway.metric_families import Families
from headrace.gateway.upstream import BrokeOff, UpstreamError, UpstreamRequest

FAMILIES = frozenset(
    f"vllm:{name}"
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "num_preemptions",
        "kv_cache_usage_perc",
        "prefix_cache_queries",
        "prefix_cache_hits",
        "prompt_tokens",
        "generation_tokens",
        "request_success",
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
    )
)
"""What vLLM's published dashboards show (vllm/v1/metrics/loggers.py, 0.32.0); our own engines have the same names."""

TIMEOUT_S = 1.0
"""For one engine to answer. Prometheus gives a whole scrape 10 s unless told otherwise."""

MOST_BYTES = 4 * 1024 * 1024
"""Of what one engine says; vLLM's own is some 60 kB."""

_BEGINNINGS = tuple(
    begin + family.encode("ascii") for family in sorted(FAMILIES) for begin in (b"", b"# HELP ", b"# TYPE ")
)


class Told(NamedTuple):
    """What one replica's engine said; None if it said nothing that can be read."""

    deployment: str
    replica: str
    text: bytes | None


async def engine_metrics(fleet: Fleet) -> bytes:
    """Ask every engine of ours, all at once; Prometheus's text format.

    One that does not answer in time costs nobody else their series: its ``headrace_gateway_engine_up`` is 0. External
    servers are not asked: what they have at ``/metrics`` is not ours to show.
    """
    asked = [
        (deployment, replica)
        for deployment, pool in fleet.pools.items()
        for replica in pool.replicas
        if replica.route.external is None
    ]
    texts = await asyncio.gather(*(text_of(replica) for _, replica in asked))
    told = [Told(deployment, replica.route.id, text) for (deployment, replica), text in zip(asked, texts, strict=True)]
    return await asyncio.to_thread(merged, told)


async def text_of(replica: Replica) -> bytes | None:
    """What one engine of ours says; None if it does not answer in time."""
    request = UpstreamRequest(method="GET", target=replica.target("/metrics"), headers=replica.headers)
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            await replica.upstream.send(request, timeout_s=TIMEOUT_S) as answer,
        ):
            pieces, size = [], 0
            while size <= MOST_BYTES and (piece := await answer.read()):
                pieces.append(piece)
                size += len(piece)
            return b"".join(pieces) if answer.status == 200 and size <= MOST_BYTES else None
    except (UpstreamError, BrokeOff, TimeoutError):
        return None


def merged(told: Sequence[Told]) -> bytes:
    """One text of many: a family's series of all replicas stand together, as Prometheus demands.

    Args:
        told: What each engine said.
    """
    families = Families()
    up = GaugeMetricFamily(
        "headrace_gateway_engine_up",
        "Whether the engine of a replica told its metrics.",
        labels=["deployment", "replica"],
    )
    for one in told:
        read = _families(one.text)
        up.add_metric([one.deployment, one.replica], read is not None)
        families.add(read or (), deployment=one.deployment, replica=one.replica)
    families.add([up])
    return families.text()


def _families(text: bytes | None) -> list[Metric] | None:
    """Those of the list that an engine told; None if it told nothing that can be read."""
    if text is None:
        return None
    wanted = b"\n".join(line for line in text.split(b"\n") if line.startswith(_BEGINNINGS))
    try:
        return [one for one in text_string_to_metric_families(wanted.decode() + "\n") if one.name in FAMILIES]
    except ValueError:
        return None
