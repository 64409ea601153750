"""What each metric of a deployment is: out of what the gateway and its replicas' nodes said last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from headrace.capacity.autoscaling import Reading
from headrace.capacity.trend import WORK_PERCENT, Rate, work_reading
from headrace.control.sight import Sight
from headrace.resources.assignments import ReplicaLoad
from headrace.resources.autoscaling import DEFAULT_PERCENT, Metric, MetricTarget
from headrace.resources.deployments import Deployment, Replica

_OF_REPLICAS: Mapping[Metric, Callable[[ReplicaLoad], float | None]] = {
    Metric.CPU: lambda load: load.cpu_percent,
    Metric.ACCELERATOR: lambda load: load.accelerator_percent,
    Metric.GPU: lambda load: load.accelerator_percent,
    Metric.KV_CACHE: lambda load: load.kv_cache_percent,
    Metric.WAITING: lambda load: load.waiting,
}
"""What nodes tell, for one replica each."""


def targets_of(deployment: Deployment, *, sold: bool = False) -> tuple[MetricTarget, ...]:
    """What it scales by: its work where its throughput was sold; what was asked for, else what Vertex AI scales by."""
    asked = deployment.autoscaling.targets if deployment.autoscaling else ()
    if sold:
        return (MetricTarget(Metric.WORK, WORK_PERCENT), *asked)
    if asked:
        return asked
    default = [MetricTarget(Metric.CPU, DEFAULT_PERCENT)]
    if deployment.machine.accelerator_count:
        default.append(MetricTarget(Metric.ACCELERATOR, DEFAULT_PERCENT))
    return tuple(default)


def readings_of(
    deployment: Deployment, ready: Sequence[Replica], sight: Sight, rates: Sequence[Rate] | None = None
) -> list[Reading]:
    """Every metric that it scales by; of those that are not known, as much as is.

    Args:
        deployment: The pool.
        ready: Its replicas that take requests.
        sight: What was heard.
        rates: What work came in the last minutes, where its throughput was sold; else None.
    """
    return [
        _reading(deployment, ready, sight, one)
        if one.metric is not Metric.WORK
        else work_reading(rates or (), sight.work_waiting.get(deployment.id, 0.0), whole=sight.hears_gateway)
        for one in targets_of(deployment, sold=rates is not None)
    ]


def _reading(deployment: Deployment, ready: Sequence[Replica], sight: Sight, asked: MetricTarget) -> Reading:
    total, whole = 0.0, True
    told = _OF_REPLICAS.get(asked.metric)
    if told is not None:
        values = [told(sight.loads[one.id]) if one.id in sight.loads else None for one in ready]
        known = [value for value in values if value is not None]
        total, whole = sum(known), bool(ready) and len(known) == len(ready)
    if asked.metric in _OF_GATEWAYS:
        total += _OF_GATEWAYS[asked.metric](deployment, ready, sight)
        whole = whole and sight.hears_gateway
    return Reading(asked.metric, total, asked.target, whole)


def _line(deployment: Deployment, _ready: Sequence[Replica], sight: Sight) -> float:
    return sight.waiting.get(deployment.id, 0)


def _arrivals(deployment: Deployment, _ready: Sequence[Replica], sight: Sight) -> float:
    return sight.per_minute.get(deployment.id, 0)


def _under_way(deployment: Deployment, ready: Sequence[Replica], sight: Sight) -> float:
    return sum(sight.outstanding.get(one.id, 0) for one in ready) + _line(deployment, ready, sight)


_OF_GATEWAYS: Mapping[Metric, Callable[[Deployment, Sequence[Replica], Sight], float]] = {
    Metric.WAITING: _line,
    Metric.REQUESTS: _arrivals,
    Metric.CONCURRENCY: _under_way,
}
"""What gateways tell, for the whole pool. A request waits wherever it waits: in an engine's line or before it."""
