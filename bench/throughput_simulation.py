"""How near simulations are to what was measured, and what a simulated request costs at 1,000 replicas and 100 tenants.

``attack``: what `make bench-throughput` measured through our gateway (``bench/results/throughput.json``) is played
again by the cost of its engine, many times. ``trace``: likewise what `make bench-throughput_trace`
measured, request by request. Goal (issue 7): within 10 % or the spread of the real runs, whichever is larger.
``scale``: both loads at 1,000 replicas and 100 tenants. Nothing runs but arithmetic.

    make bench-throughput_simulation
    make bench-throughput_simulation ARGUMENTS=--quick      # a fifth of the time; nothing is kept
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.capacity.simulation import Outcome, Scale, Tenant, simulate
from headrace.capacity.units import OUTPUT_TOKENS, PROMPT_TOKENS
from headrace.cli.simulate import read_trace
from headrace.resources.autoscaling import Metric
from headrace.resources.profiles import Carried, Cost
from report import RESULTS, Report, median
from throughput import FLOOD, GUARANTEED, OF_IT, OURS, SECONDS, SHAPE
from throughput_trace import TRACE

REPLICAS, TENANTS = 1_000, 100
CARRIED = Carried(
    cost=Cost(prompt=1e-3, prompt_squared=1e-8, step=0.02, sequence=1e-3, context=1e-7),
    concurrency=8,
    first_s=3.0,
    gap_s=0.2,
)
"""About what SmolLM2-135M costs on two cores (`docs/throughput.md`)."""

SEEDS = 40
"""Of an attack: its real rounds are forty seconds, of which chance alone makes any p99."""

GOAL = 0.1
MINUTES, TRACE_S = 10.0, 1800.0
COLUMNS = ("load", "replicas", "tenants", "requests", "refused", "within, worst", "first p99 s", "busy", "µs a request")


def near(real: Sequence[float], simulated: float) -> bool:
    """Whether it is within a tenth of the median of real runs, or within their spread."""
    return abs(simulated - median(real)) <= max(GOAL * median(real), max(real) - min(real))


def told(report: Report, what: str, real: Sequence[float], simulated: float) -> None:
    """A goal's line."""
    spread = f"{min(real):.3g} to {max(real):.3g}, {len(real)} runs"
    report.goal(what, f"simulated {simulated:.3g}, measured {median(real):.3g} ({spread})", near(real, simulated))


def measured(name: str) -> dict[str, Any]:
    """What a benchmark kept; empty where it has not run."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def attack_again(report: Report) -> None:
    """The attack of `bench/throughput.py`, compliant and flooded."""
    rows = measured("throughput").get("rows", [])
    profile = next((row[2] for row in rows if row[0] == "profile"), "")
    if not profile:
        report.goal("attack: simulated as measured", "not measured here: make bench-throughput", None)
        return
    carried = msgspec.json.decode(profile, type=Carried)
    work = carried.units(*SHAPE)
    a = Tenant(name="a", requests_per_s=OF_IT * GUARANTEED / work, lengths=(SHAPE,), guaranteed=GUARANTEED, most=1.0)
    for load, times in (("compliant", OF_IT), ("attacked", FLOOD)):
        real = [row for row in rows if row[:2] == ["attack", OURS] and row[2].startswith(load)]
        if not real:
            report.goal(f"attack, {load}: simulated as measured", "no round was measured", None)
            continue
        b = Tenant(name="b", requests_per_s=times * (1.0 - GUARANTEED) / work, lengths=(SHAPE,))
        ours = [
            simulate([a, b], carried, Scale(least=1, most=1), seconds=SECONDS, seed=seed).tenants[0]
            for seed in range(SEEDS)
        ]
        name = f"attack, {load}: A's"
        within = [float(row[3].partition("%")[0]) / 100.0 for row in real]
        told(report, f"{name} work in the SLO", within, median([one.attainment for one in ours]))
        for column, what, simulated in (
            (4, "p50", median([one.first_p50_s for one in ours])),
            (5, "p99", median([one.first_p99_s for one in ours])),
        ):
            told(report, f"{name} first token, {what}, s", [float(row[column]) / 1e3 for row in real], simulated)


def trace_again(report: Report) -> None:
    """The replay of `bench/throughput_trace.py`, which simulates each way to scale itself, of the same requests."""
    rows = measured("throughput_trace").get("rows", [])
    for way in dict.fromkeys(row[0] for row in rows):
        real, simulated = ([row for row in rows if row[:2] == [way, kind]] for kind in ("real", "simulated"))
        for column, what in ((4, "work in the SLO, %"), (5, "replica-hours")):
            values = [float(row[column]) for row in real]
            told(report, f"trace, {way}: {what}", values, median([float(row[column]) for row in simulated]))
    if not rows:
        report.goal("trace: simulated as measured", "not measured here: make bench-throughput_trace", None)


def played(report: Report, name: str, tenants: Sequence[Tenant], scale: Scale, seconds: float) -> None:
    """A row, and a goal's line of microseconds of processor time a request."""
    began = time.process_time()
    outcome: Outcome = simulate(tenants, CARRIED, scale, seconds=seconds)
    asked = sum(one.asked for one in outcome.tenants)
    cost_us = 1e6 * (time.process_time() - began) / asked
    sold = [one for one in outcome.tenants if one.name != "flood"]
    report.row(
        name,
        outcome.most_replicas,
        len(tenants),
        asked,
        sum(one.refused for one in outcome.tenants),
        f"{min(one.attainment for one in sold):.2%}",
        f"{max(one.first_p99_s for one in sold):.2f}",
        f"{outcome.utilisation:.0%}",
        f"{cost_us:.0f}",
    )
    report.goal(f"{name}: a simulated request, of one core", f"{cost_us:.0f} µs", None)


def at_scale(report: Report, share: float) -> None:
    """Both loads with a hundred tenants: what is sold under a flood, and the trace with the autoscaler."""
    each = REPLICAS / TENANTS / CARRIED.units(PROMPT_TOKENS, OUTPUT_TOKENS)
    alike = [
        Tenant(name=f"tenant {number}", requests_per_s=0.5 * each, guaranteed=0.55 * REPLICAS / TENANTS)
        for number in range(TENANTS)
    ]
    flood = Tenant(name="flood", requests_per_s=FLOOD * 0.45 * each * TENANTS)
    fixed, seconds = Scale(least=REPLICAS, most=REPLICAS), 60.0 * MINUTES * share
    played(report, "all keep to theirs", alike, fixed, seconds)
    played(report, "one more floods", [*alike, flood], fixed, seconds)
    requests = read_trace(TRACE, 1.0)
    whole_s = requests[-1][0]
    moved = [
        tuple(sorted(((at + number * whole_s / TENANTS) % whole_s, *lengths) for at, *lengths in requests))
        for number in range(TENANTS)
    ]
    replayed = [Tenant(name=f"trace {number}", arrivals=arrivals) for number, arrivals in enumerate(moved)]
    scale = Scale(least=REPLICAS, most=4 * REPLICAS, metric=Metric.CONCURRENCY, target=4)
    played(report, "the trace, a tenant each", replayed, scale, TRACE_S * share)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time; nothing is kept")
    options = parser.parse_args()
    report = Report("throughput_simulation", COLUMNS)
    attack_again(report)
    trace_again(report)
    at_scale(report, 0.2 if options.quick else 1.0)
    report.finish(keep=not options.quick)


if __name__ == "__main__":
    main()
