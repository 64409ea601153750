"""Is a throughput that was sold kept, how fair is the rest, and what does admission cost?

``attack``: one real engine (SmolLM2-135M by `headrace deploy`, measured by `headrace profile`). Tenant A was sold half
of the replica and asks 95 % of that, at random times; B was sold nothing. In a compliant run B asks 95 % of the other
half; in an attack ten times the other half. Compliant runs and attacks take turns, through our gateway, through
LiteLLM's proxy with its limits, and at the bare engine. A run counts where the load itself used under 30 % of a core.
``fairness``: two keys that always have requests in line, one with small and one with large requests.
``admission``: decisions a second on one core, and memory, of ten thousand keys and a thousand endpoints.

    make bench-throughput
    make bench-throughput ARGUMENTS="--only attack,fairness"
    make bench-throughput ARGUMENTS="--quick"     # one short round, to see that it works
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from engine_client import Job, Prompts, Server, replay
from gateway_contenders import NotStarted
from headrace.gateway.fair_queue import cost
from report import Report, median
from throughput_admission import decided
from throughput_tenants import (
    Engine,
    Front,
    Tenants,
    Turn,
    arrivals,
    attack,
    await_idle,
    bare_engine,
    litellm,
    profiled_engine,
    provisioned_endpoint,
)

COLUMNS = ("part", "who", "load", "A's work in the SLO", "first token p50 ms", "p99 ms", "B answered", "load's CPU")
SHAPE = 96, 32
"""Tokens of a request's prompt and answer."""

GUARANTEED, OF_IT, FLOOD = 0.5, 0.95, 10.0
ROUNDS, SECONDS = 5, 40.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 10.0
GOAL_SLO, GOAL_FIRST, MOST_CPU = 0.99, 1.2, 0.3
OURS, LITELLM, BARE = "ours", "litellm", "bare engine"

PLACES, BACKLOG, FAIR_S = 8, 24, 60.0
SMALL, LARGE = (48, 8), (192, 32)
KEYS, ENDPOINTS, DECIDING_S = 10_000, 1_000, 5.0


class Rates(NamedTuple):
    """Requests a second."""

    a: float
    b: float
    flood: float


def rates_of(engine: Engine) -> Rates:
    """By what a request of the shape costs."""
    work = engine.carried.units(*SHAPE)
    rest = 1.0 - GUARANTEED
    return Rates(OF_IT * GUARANTEED / work, OF_IT * rest / work, FLOOD * rest / work)


async def take_turns(report: Report, engine: Engine, fronts: Mapping[str, Front], *, quick: bool) -> None:
    """All rounds of everybody, and the goals."""
    rates, rng = rates_of(engine), random.Random(11)
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    turns: dict[tuple[str, str], list[Turn]] = {}
    with ExitStack() as stack:
        tenants: dict[str, Tenants] = {}
        for name, front in fronts.items():
            try:
                tenants[name] = stack.enter_context(front)
            except NotStarted as error:
                report.row("attack", name, f"did not take part: {error}", *[""] * (len(COLUMNS) - 3))
        for number in range(rounds):
            words = Prompts(seed=100 + number)
            for name, who in tenants.items():
                for load, per_s in (("compliant", rates.b), ("attacked", rates.flood)):
                    a = arrivals(words, rng, rates.a, seconds, SHAPE)
                    b = arrivals(words, rng, per_s, seconds, SHAPE)
                    turn = await attack(who, a, b, engine.carried)
                    await await_idle(engine)
                    show(report, name, f"{load}, round {number + 1}", turn)
                    if turn.cpu_share < MOST_CPU:
                        turns.setdefault((name, load), []).append(turn)
    judge(report, turns)


def show(report: Report, name: str, load: str, turn: Turn) -> None:
    """A row."""
    times = [f"{turn.first_s(share) * 1e3:.0f}" for share in (0.5, 0.99)]
    answered = f"{turn.b_answered} of {turn.b_offered}"
    cells = (f"{turn.within_slo:.1%} of {turn.offered}", *times, answered, f"{turn.cpu_share:.0%}")
    report.row("attack", name, load, *cells)
    print(f"  {name:12} {load:22} {' · '.join(cells)}", flush=True)


def judge(report: Report, turns: Mapping[tuple[str, str], Sequence[Turn]]) -> None:
    """A line per goal; of the others, and of what did not count, what was measured."""
    for name in dict.fromkeys(name for name, _ in turns):
        quiet, loud = turns.get((name, "compliant"), ()), turns.get((name, "attacked"), ())
        if not quiet or not loud:
            report.goal(f"attack: {name} was measured", "no run counted: the load took too much of a core", None)
            continue
        shares = [turn.within_slo for turn in loud]
        firsts = [turn.first_s(0.99) for turn in loud]
        ratio = median(firsts) / median([turn.first_s(0.99) for turn in quiet])
        met = (median(shares) >= GOAL_SLO, ratio <= GOAL_FIRST) if name == OURS else (None, None)
        report.goal(
            f"attack: {name}: at least {GOAL_SLO:.0%} of A's work inside the SLO",
            f"{median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%}, {len(shares)} runs)",
            met[0],
        )
        report.goal(
            f"attack: {name}: A's p99 time to first token at most {GOAL_FIRST} of compliant",
            f"{ratio:.2f} ({min(firsts) * 1e3:.0f} to {max(firsts) * 1e3:.0f} ms)",
            met[1],
        )


async def backlogged(server: Server, shape: tuple[int, int], until_s: float, served: list[tuple[float, int]]) -> None:
    """Ask again as soon as there is an answer, so many at a time; note when how much was served."""
    words = Prompts(seed=sum(shape))

    async def client() -> None:
        while time.perf_counter() < until_s:
            measured = await replay(server, [Job(words.text(shape[0]), shape[1])])
            if measured.answers:
                served.append((time.perf_counter(), cost(shape[0], measured.answers[0].tokens)))

    await asyncio.gather(*(client() for _ in range(BACKLOG)))


async def fairness(report: Report, tenants: Tenants, *, quick: bool) -> None:
    """Two keys with requests in line all the time: how far apart what they were served ever is."""
    until_s = time.perf_counter() + (QUICK_SECONDS if quick else FAIR_S)
    small: list[tuple[float, int]] = []
    large: list[tuple[float, int]] = []
    await asyncio.gather(backlogged(tenants.a, SMALL, until_s, small), backlogged(tenants.b, LARGE, until_s, large))
    moves = [(at, weight) for at, weight in small] + [(at, -weight) for at, weight in large]
    apart = most = 0
    for at, weight in sorted(moves):
        if at <= until_s:
            apart += weight
            most = max(most, abs(apart))
    bound = 2 * PLACES * cost(*LARGE)
    sums = [sum(weight for at, weight in one if at <= until_s) for one in (small, large)]
    report.row(
        "fairness", "ours", f"{len(small)} small, {len(large)} large", f"{sums[0]} / {sums[1]} tokens", *[""] * 4
    )
    report.goal(
        "fairness: two backlogged keys never further apart than 2 x places x the largest request",
        f"{most:,} of {bound:,} weighted tokens",
        most <= bound and min(sums) > 0,
    )


def measure_engine(report: Report, parts: Sequence[str], *, quick: bool) -> None:
    """The parts that need a real engine."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as scratch:
        folder = Path(scratch)
        with profiled_engine(folder, quick=quick) as engine:
            rates = rates_of(engine)
            if "attack" in parts:
                # Of this cost the attack is played again (`throughput_simulation.py`).
                report.row("profile", OURS, msgspec.json.encode(engine.carried).decode(), *[""] * (len(COLUMNS) - 3))
                fronts: dict[str, Front] = {
                    OURS: provisioned_endpoint(engine, folder / "ours", guaranteed=GUARANTEED, most=1.0),
                    LITELLM: litellm(
                        engine,
                        folder / "litellm",
                        a_per_minute=60 * GUARANTEED / engine.carried.units(*SHAPE),
                        b_per_minute=60 * rates.b / OF_IT,
                    ),
                    BARE: bare_engine(engine),
                }
                uvloop.run(take_turns(report, engine, fronts, quick=quick))
            if "fairness" in parts:
                with provisioned_endpoint(engine, folder / "fair", guaranteed=0.0, most=0.0, places=PLACES) as tenants:
                    uvloop.run(fairness(report, tenants, quick=quick))


def measure_admission(report: Report, *, quick: bool) -> None:
    """Decisions, with a throughput and without."""
    keys, endpoints = (KEYS // 10, ENDPOINTS // 10) if quick else (KEYS, ENDPOINTS)
    for sold, name in ((True, "throughput sold"), (False, "none sold")):
        found = decided(keys, endpoints, 1.0 if quick else DECIDING_S, sold=sold)
        load = f"{keys:,} keys x {endpoints:,} endpoints"
        rate = f"{found.per_s:,.0f} decisions/s, {1e6 / found.per_s:.1f} us"
        memory = f"{found.snapshot_mb:.0f} MB, {found.used_mb:+.0f} MB in use"
        report.row("admission", name, load, rate, memory, *[""] * 3)
        report.goal(f"admission: decisions a second on one core, {name}", f"{found.per_s:,.0f}; {memory}", None)


ENGINE_PARTS = ("attack", "fairness")
PARTS = (*ENGINE_PARTS, "admission")


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - {*PARTS}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    report = Report("throughput", COLUMNS)
    kept = {*PARTS, "profile"} - {*parts} - ({"profile"} if "attack" in parts else set())
    report.take_over(lambda part: part in kept)
    if "admission" in parts:
        measure_admission(report, quick=options.quick)
    if engine_parts := [part for part in parts if part in ENGINE_PARTS]:
        measure_engine(report, engine_parts, quick=options.quick)
    report.finish(keep=not options.quick)


if __name__ == "__main__":
    main()
