"""How a deployment's scale is asked for on the command line, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from headrace.resources.autoscaling import Metric


def autoscaling_body(targets: Sequence[str], lower_after_s: float | None) -> dict[str, Any]:
    """``METRIC=VALUE`` and seconds, as the native API has them.

    Raises:
        BadParameter: One of them has no value that is a whole number.
    """
    asked: dict[str, int] = {}
    for each in targets:
        metric, _, value = each.partition("=")
        if not metric or not value.isdecimal():
            raise typer.BadParameter(f"A target is METRIC=VALUE, such as vllm_num_requests_waiting=4; not {each!r}.")
        asked[metric] = int(value)
    body: dict[str, Any] = {"targets": asked} if asked else {}
    return body if lower_after_s is None else body | {"lower_after_s": lower_after_s}


def told_targets(deployment: dict[str, Any]) -> str:
    """The metrics that were asked for, with their targets."""
    asked = (deployment.get("autoscaling") or {}).get("targets") or []
    if (deployment.get("scaling") or {}).get("metric") == Metric.WORK and not asked:
        return "the throughput that was sold"
    return ", ".join(f"{each['metric']}={each['target']}" for each in asked) or "the default"


def told_replicas(deployment: dict[str, Any]) -> str:
    """Its number of replicas, or the bounds of that."""
    least, most = deployment["min_replicas"], deployment.get("max_replicas")
    if most is not None and least != most:
        return f"{least} to {most} replicas"
    return "1 replica" if least == 1 else f"{least} replicas"


def scale_rows(deployment: dict[str, Any]) -> list[tuple[str, str]]:
    """What it scales by, between which bounds, what was decided last and why; nothing where its number is fixed."""
    if deployment.get("max_replicas", 0) <= deployment.get("min_replicas", 0):
        return []
    rows = [
        ("replicas", f"{deployment['wanted_replicas']} of {told_replicas(deployment)}"),
        ("scales by", told_targets(deployment)),
    ]
    scaling = deployment.get("scaling") or {}
    if scaling.get("why"):
        rows.append(("because", scaling["why"]))
    if scaling.get("pending"):
        rows.append(("pending", scaling["pending"]))
    return rows


def scale_lines(name: str, deployment: dict[str, Any]) -> list[str]:
    """The same for `headrace status`: a sentence each."""
    rows = dict(scale_rows(deployment))
    if not rows:
        return []
    lines = [f"{name} has {rows['replicas']}" + (f": {rows['because']}" if "because" in rows else ".")]
    return lines + ([f"{name} waits for more: {rows['pending']}"] if "pending" in rows else [])
