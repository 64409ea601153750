"""How many replicas a deployment runs by itself: by which metrics, and what was decided last.

The bounds are the deployment's own `min_replicas` and `max_replicas`; where they are equal nothing is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from headrace.resources.errors import BadField

DEFAULT_PERCENT = 60
"""The target of a percentage that none was given for, and of the CPU where nothing was asked for: Vertex AI's."""

MOST_TARGET = 2**31 - 1
"""Of a count: what Vertex AI's field, an int32, can hold."""

LOWER_AFTER_S = 300.0
"""Vertex AI goes by the highest usage of the last five minutes, and so does Kubernetes' autoscaler."""

SHORTEST_LOWER_AFTER_S, LONGEST_LOWER_AFTER_S = 10.0, 3600.0


class Metric(StrEnum):
    """What the number of replicas may follow. Values are of one replica, on average."""

    CPU = "cpu_utilization"  # percent of the cores that it has
    ACCELERATOR = "accelerator_duty_cycle"  # percent of the time in which its GPUs computed
    GPU = "dcgm_fi_dev_gpu_util"  # the same, by the name that DCGM has for it
    KV_CACHE = "vllm_gpu_cache_usage_perc"  # percent of its KV cache that is in use
    WAITING = "vllm_num_requests_waiting"  # requests in its engine's line, and its part of those in the gateway's
    REQUESTS = "request_count"  # requests that came within a minute
    CONCURRENCY = "concurrent_requests"  # requests under way and in line
    WORK = "provisioned_work"  # percent of what it carries that comes; of deployments whose throughput was sold

    @property
    def is_percentage(self) -> bool:
        """Whether it ends at 100."""
        return self in _PERCENTAGES


_PERCENTAGES = frozenset({Metric.CPU, Metric.ACCELERATOR, Metric.GPU, Metric.KV_CACHE})


class MetricTarget(msgspec.Struct, frozen=True):
    """What a metric should be at, for one replica."""

    metric: Metric
    target: int


class Autoscaling(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for.

    Attributes:
        targets: The metric that needs most replicas decides. Empty: the CPU at 60 %, and so the accelerators where
            the machine asked for has any.
        lower_after_s: How long fewer replicas must have been enough before there are fewer.
    """

    targets: tuple[MetricTarget, ...] = ()
    lower_after_s: float = LOWER_AFTER_S


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided.

    Attributes:
        replicas: How many should run.
        at: When that was last looked at and written down.
        metric: What decided; empty where none could be read.
        value: It was this then, for one replica.
        target: And should be at this.
        why: The same as a sentence.
        raised_at: When there were to be more the last time; 0: never.
        lowered_at: When fewer.
        pending: What keeps replicas from being started that should run; empty when nothing does.
    """

    replicas: int
    at: float = 0.0
    metric: str = ""
    value: float = 0.0
    target: int = 0
    why: str = ""
    raised_at: float = 0.0
    lowered_at: float = 0.0
    pending: str = ""


def read_autoscaling(targets: Mapping[str, int], lower_after_s: float = LOWER_AFTER_S) -> Autoscaling:
    """What was asked for, held to what there is.

    Args:
        targets: By the metric's name; 0 for a percentage's default.
        lower_after_s: As in `Autoscaling`.

    Raises:
        BadField: There is no such metric, or a number is out of its range.
    """
    if not SHORTEST_LOWER_AFTER_S <= lower_after_s <= LONGEST_LOWER_AFTER_S:
        raise BadField(
            "Replicas may go after ten seconds to an hour in which fewer were enough.",
            evidence=f"lower_after_s is {lower_after_s}.",
            fix=f"Give {SHORTEST_LOWER_AFTER_S:g} to {LONGEST_LOWER_AFTER_S:g}.",
        )
    return Autoscaling(
        targets=tuple(read_target(name, target) for name, target in targets.items()), lower_after_s=lower_after_s
    )


def read_target(name: str, target: int, *, known: Mapping[str, Metric] | None = None) -> MetricTarget:
    """One metric's target.

    Args:
        name: The metric's.
        target: Its target; 0 for a percentage's default.
        known: The names that it may have; by default our own.

    Raises:
        BadField: There is no such metric, or the target is out of its range.
    """
    names = {str(metric): metric for metric in Metric if metric is not Metric.WORK} if known is None else known
    metric = names.get(name)
    if metric is None:
        raise BadField(
            "There is no such autoscaling metric.",
            evidence=f"It is {name[:100]!r}.",
            fix=f"The metrics are: {', '.join(names)}.",
        )
    if metric.is_percentage and target == 0:
        target = DEFAULT_PERCENT
    most = 100 if metric.is_percentage else MOST_TARGET
    if not 1 <= target <= most:
        raise BadField(
            f"The target of {name} is out of its range.", evidence=f"It is {target}.", fix=f"Give 1 to {most}."
        )
    return MetricTarget(metric, target)
