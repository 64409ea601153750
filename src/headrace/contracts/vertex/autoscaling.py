"""``dedicatedResources.autoscalingMetricSpecs``: by which metrics a deployed model scales.

The names, their units and their ranges are those of Vertex AI's guide
(https://cloud.google.com/vertex-ai/docs/predictions/autoscaling): percentages end at 100 and are 60 where no target is
given; requests per minute and requests that wait are whole numbers for each replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.resources.autoscaling import Autoscaling, Metric, read_target
from headrace.resources.errors import BadField, NotSupported

_ONLINE = "aiplatform.googleapis.com/prediction/online"
_PROMETHEUS = "prometheus.googleapis.com/vertex"

METRICS = {
    f"{_ONLINE}/cpu/utilization": Metric.CPU,
    f"{_ONLINE}/accelerator/duty_cycle": Metric.ACCELERATOR,
    f"{_ONLINE}/request_count": Metric.REQUESTS,
    f"{_PROMETHEUS}_dcgm_fi_dev_gpu_util": Metric.GPU,
    f"{_PROMETHEUS}_vllm_gpu_cache_usage_perc": Metric.KV_CACHE,
    f"{_PROMETHEUS}_vllm_num_requests_waiting": Metric.WAITING,
}
"""By their names on the wire. The length of a Pub/Sub subscription is not ours to know."""

_NAMES = {metric: name for name, metric in METRICS.items()}


class AutoscalingMetricSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One metric and its target."""

    metric_name: str = ""
    target: int = 0
    monitored_resource_labels: dict[str, str] = {}


def read_metric_specs(specs: Sequence[AutoscalingMetricSpec], where: str) -> Autoscaling | None:
    """What was asked for; None where nothing was.

    Args:
        specs: As they came.
        where: The field that holds them, for messages.

    Raises:
        BadField: A metric is unknown or given twice, or a target is out of its range.
        NotSupported: It narrows a metric down by labels.
    """
    targets = []
    for index, spec in enumerate(specs):
        here = f"{where}[{index}]"
        if spec.monitored_resource_labels:
            raise NotSupported(f"{here}.monitoredResourceLabels is not supported.", fix="Leave it out.")
        try:
            targets.append(read_target(spec.metric_name, spec.target, known=METRICS))
        except BadField as error:
            failure = error.failure
            raise BadField(f"{here}: {failure.message}", evidence=failure.evidence, fix=failure.fix) from error
    if len({one.metric for one in targets}) < len(targets):
        raise BadField(f"{where} names a metric twice.", fix="Give each metric one target.")
    return Autoscaling(targets=tuple(targets)) if targets else None


def metric_specs_json(autoscaling: Autoscaling | None) -> list[dict[str, Any]]:
    """As the wire has it; what Vertex AI has no name for is left out."""
    targets = autoscaling.targets if autoscaling else ()
    return [{"metricName": _NAMES[one.metric], "target": one.target} for one in targets if one.metric in _NAMES]
