"""What a simulated request costs at 1,000 replicas and 100 tenants, and how near simulations are to what was measured.

The second half needs ``bench/results/throughput.json`` (``make bench-throughput``), whose attack is played again by the
fitted cost of its engine. Goal (issue 7): within 10 % or the spread of the real runs, whichever is larger.

    make bench-throughput_simulation
    make bench-throughput_simulation ARGUMENTS=--quick      # fewer minutes; nothing is kept
"""

from __future__ import annotations

import argparse
import time

from headrace.capacity.simulation import Scale, Tenant, simulate
from headrace.capacity.units import OUTPUT_TOKENS, PROMPT_TOKENS
from headrace.resources.profiles import Carried, Cost
from report import Report

REPLICAS, TENANTS = 1_000, 100
CARRIED = Carried(
    cost=Cost(prompt=1e-3, prompt_squared=1e-8, step=0.02, sequence=1e-3, context=1e-7),
    concurrency=8,
    first_s=3.0,
    gap_s=0.2,
)
"""About what SmolLM2-135M costs on two cores (`docs/throughput.md`)."""

COLUMNS = ("load", "replicas", "tenants", "requests", "refused", "within, all", "first p99 s", "busy", "µs a request")


def played(report: Report, name: str, tenants: list[Tenant], minutes: float) -> float:
    """One row; returns microseconds of processor time a request."""
    began = time.process_time()
    outcome = simulate(tenants, CARRIED, Scale(least=REPLICAS, most=REPLICAS), seconds=60.0 * minutes)
    asked = sum(one.asked for one in outcome.tenants)
    cost_us = 1e6 * (time.process_time() - began) / asked
    sold = [one for one in outcome.tenants if one.name != "flood"]
    report.row(
        name,
        REPLICAS,
        len(tenants),
        asked,
        sum(one.refused for one in outcome.tenants),
        f"{min(one.attainment for one in sold):.2%}",
        f"{max(one.first_p99_s for one in sold):.2f}",
        f"{outcome.utilisation:.0%}",
        f"{cost_us:.0f}",
    )
    return cost_us


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time; nothing is kept")
    options = parser.parse_args()
    minutes = 2.0 if options.quick else 10.0
    report = Report("throughput_simulation", COLUMNS)
    each = REPLICAS / TENANTS / CARRIED.units(PROMPT_TOKENS, OUTPUT_TOKENS)
    alike = [
        Tenant(name=f"tenant {number}", requests_per_s=0.6 * each, guaranteed=0.7 * REPLICAS / TENANTS)
        for number in range(TENANTS)
    ]
    flood = Tenant(name="flood", requests_per_s=10 * 0.3 * each * TENANTS)
    calm_us = played(report, "all keep to theirs", alike, minutes)
    played(report, "one more floods", [*alike, flood], minutes)
    report.goal("a simulated request, of one core", f"{calm_us:.0f} µs", None)
    report.finish(keep=not options.quick)


if __name__ == "__main__":
    main()
