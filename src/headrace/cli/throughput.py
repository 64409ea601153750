"""How a throughput is asked for on the command line, and shown."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from headrace.resources.autoscaling import Metric
from headrace.resources.profiles import Carried

ThroughputOption = Annotated[
    str,
    typer.Option(
        metavar="MIN:MAX",
        help="Guarantee MIN and admit MAX tokens a second, or chunks (1x:2x); there are as many engines as it takes.",
    ),
]


def told_throughput(least: int, most: int) -> str:
    """What is guaranteed and what is admitted."""
    if not least:
        return f"nothing guaranteed, {most:,} tokens/s at most"
    return f"{least:,} tokens/s guaranteed, {most:,} at most"


def carried_rows(deployment: dict[str, Any]) -> list[tuple[str, str]]:
    """What one of its replicas carries, where that is known, and what it waits for."""
    from headrace.capacity.units import tokens_per_s  # noqa: PLC0415  # brings the arithmetic of plans

    carried, rows = deployment.get("carried"), []
    if carried:
        one = msgspec.convert(carried, Carried)
        rows.append(("carries", f"{tokens_per_s(one):,.0f} tokens/s a replica, {_how(one)}"))
    if deployment.get("pending") and not (deployment.get("scaling") or {}).get("pending"):
        rows.append(("pending", deployment["pending"]))
    return rows


def sold_lines(endpoints: list[dict[str, Any]]) -> list[str]:
    """A sentence for each deployed model that was sold a throughput, and for what its replicas wait for."""
    lines = []
    for endpoint in endpoints:
        for each in endpoint["deployed_models"]:
            if each.get("provision"):
                lines.append(f"{endpoint['display_name'] or endpoint['id']}: {_sold(each)}.")
            pool = each.get("deployment") or {}
            if each.get("provision") and pool.get("pending"):
                lines.append(f"{endpoint['display_name'] or endpoint['id']} waits: {pool['pending']}")
    return lines


def current(pool: dict[str, Any]) -> str:
    """How many replicas serve of those that should, and what of them the last minutes took."""
    ready = sum(replica["state"] == "READY" and not replica.get("failure") for replica in pool.get("replicas") or [])
    told = f"{ready}/{pool.get('wanted_replicas', pool.get('min_replicas', 0))}"
    scaling = pool.get("scaling") or {}
    return f"{told}, {scaling['value']:.0f} % busy" if scaling.get("metric") == Metric.WORK else told


def _sold(binding: dict[str, Any]) -> str:
    sold = binding["provision"]
    told = told_throughput(sold["min_tokens_per_s"], sold["max_tokens_per_s"])
    return f"{told}; replicas: {current(binding.get('deployment') or {})}"


def _how(carried: Carried) -> str:
    return "measured" if carried.measured else "predicted"
