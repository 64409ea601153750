"""How near simulations are to what was measured, and what a simulated request costs at 1,000 replicas and 100 tenants.

``attack``: what `make bench-throughput` measured through our gateway (``bench/results/throughput.json``) is played
again by the cost of its engine, many times. ``trace``: likewise what `make bench-throughput_trace`
measured, request by request. Goal (issue 7), of what those two promise: within 10 % or the spread of the real runs,
whichever is larger. Latencies, which carry the whole error of the fit, are told beside.
``scale``: both loads at 1,000 replicas and 100 tenants. Nothing runs but arithmetic.

    make bench-throughput_simulation
    make bench-throughput_simulation ARGUMENTS=--quick      # a fifth of the time; nothing is kept
"""

from __future__ import annotations

import argparse
import json
import random
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
from throughput_trace import PROFILE, ROUNDS, TRACE, scaled, simulated, ways
from throughput_trace import SECONDS as REPLAY_S

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

WARM_S = 5.0
"""Of compliant load before it, as there was before each real attack: of a tenant that was away nothing is kept."""

GOAL = 0.1
MINUTES, TRACE_S = 10.0, 1800.0
COLUMNS = ("load", "replicas", "tenants", "requests", "refused", "within, worst", "first p99 s", "busy", "µs a request")


def near(real: Sequence[float], simulated: float) -> bool:
    """Whether it is within a tenth of the median of real runs, or within their spread."""
    return abs(simulated - median(real)) <= max(GOAL * median(real), max(real) - min(real))


def told(report: Report, what: str, real: Sequence[float], simulated: float, *, promised: bool = True) -> None:
    """A goal's line; no goal where it is a latency."""
    spread = f"{min(real):.3g} to {max(real):.3g}, {len(real)} runs"
    met = near(real, simulated) if promised else None
    report.goal(what, f"simulated {simulated:.3g}, measured {median(real):.3g} ({spread})", met)


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
    p99: dict[str, tuple[list[float], float]] = {}
    for load, times in (("compliant", OF_IT), ("attacked", FLOOD)):
        real = [row for row in rows if row[:2] == ["attack", OURS] and row[2].startswith(load)]
        if not real:
            report.goal(f"attack, {load}: simulated as measured", "no round was measured", None)
            continue
        ours = [
            simulate(
                [a, other(times, work, seed)], carried, Scale(least=1, most=1), seconds=WARM_S + SECONDS, seed=seed
            ).tenants[0]
            for seed in range(SEEDS)
        ]
        name = f"attack, {load}: A's"
        within = [float(row[3].partition("%")[0]) / 100.0 for row in real]
        told(report, f"{name} work in the SLO", within, median([one.attainment for one in ours]))
        firsts = [float(row[4]) / 1e3 for row in real]
        told(report, f"{name} first token, p50, s", firsts, median([one.first_p50_s for one in ours]), promised=False)
        p99[load] = [float(row[5]) / 1e3 for row in real], median([one.first_p99_s for one in ours])
        told(report, f"{name} first token, p99, s", *p99[load], promised=False)
    if len(p99) == 2:
        (calm, ours_calm), (loud, ours_loud) = p99["compliant"], p99["attacked"]
        ratios = [one / other for one, other in zip(loud, calm, strict=False)]
        told(report, "attack: A's first token at p99, attacked / compliant", ratios, ours_loud / ours_calm)


def other(times: float, work: float, seed: int) -> Tenant:
    """Who attacks, after a while in which it did not."""
    chance, at, arrivals = random.Random(seed), 0.0, []
    while at < WARM_S + SECONDS:
        share = (OF_IT if at < WARM_S else times) * (1.0 - GUARANTEED)
        at += chance.expovariate(share / work)
        arrivals.append((at, *SHAPE))
    return Tenant(name="b", arrivals=tuple(arrivals))


def trace_again(report: Report) -> None:
    """The replay of `bench/throughput_trace.py`, of the same requests by the cost of its replicas."""
    rows = measured("throughput_trace").get("rows", [])
    profile = next((row for row in rows if row[0] == PROFILE), None)
    if profile is None:
        report.goal("trace: simulated as measured", "not measured here: make bench-throughput_trace", None)
        return
    carried, start_s = msgspec.json.decode(profile[1], type=Carried), float(profile[2])
    outcomes: dict[str, list[Outcome]] = {}
    for number in range(1, ROUNDS + 1):
        for way in ways(carried, scaled(carried, REPLAY_S, number), start_s):
            outcomes.setdefault(way.name, []).append(simulated(way, carried, number, REPLAY_S))
    for name, ours in outcomes.items():
        real = [row for row in rows if row[0] == name]
        for column, what, values, promised in (
            (3, "work in the SLO, %", [100.0 * one.tenants[0].attainment for one in ours], True),
            (4, "replica-hours", [one.replica_hours for one in ours], True),
            (5, "first token, p99, s", [one.tenants[0].first_p99_s for one in ours], False),
        ):
            seen = [float(row[column]) for row in real]
            told(report, f"trace, {name}: {what}", seen, median(values), promised=promised)


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
