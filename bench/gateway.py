"""What a request and a chunk cost in the gateway, beside nginx and other gateways, in one run.

Every contender has one core to itself and stands before the same engine, which computes nothing (``gateway_nginx.py``)
and shares the other core with the load: wrk for whole answers, ``gateway_streams.py`` for streamed ones. They take
turns, and what counts is the median of each one's ratio to nginx in the same round. What is added is held against the
engine asked directly, which then runs on the proxies' core. ``ours`` is the gateway with everything on, ``bare`` its
server and client with nothing between them.

    make bench-gateway ARGUMENTS="--quick"
    make bench-gateway ARGUMENTS="--only nginx,ours --against ../before"   # what a change is worth
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gateway_nginx
from gateway_contenders import (
    BEFORE,
    DIRECT,
    NGINX,
    OURS,
    NotStarted,
    Place,
    Running,
    contenders,
    free_port,
    gateways,
    started,
)
from gateway_load import Load, Streamed, Unary, await_idle, pss_bytes
from report import Report, median

CONNECTIONS = (1, 16, 64, 256)
BUSY = 64
"""Connections at which the cost of a request is told, and the ratio of the goal."""

FEW = {"streams": 32, "chunks": 20, "delay_ms": 10}
MANY = {"streams": 256, "chunks": 50, "delay_ms": 20}
"""Streams below saturation, where delays are told; and as many as a busy gateway has, where the cost of a chunk is."""

ROUNDS, SECONDS = 3, 3.0
HELD = {1: 9000, 2: 10_000}
"""Streams that stand open, by the number of gateways that share them."""
HELD_BYTES = 400 * 10**6
SPARE_FILES = 300
"""Open files that a gateway needs besides two for each stream."""

COLUMNS = ("contender", *(f"req/s, {count} conn. (of nginx)" for count in CONNECTIONS), "us/ request", "us/ chunk")
COLUMNS += ("unary p50/p99 ms", "first chunk p50/p99 ms", "between chunks p50/p99 ms", "PSS MB")


class Turn(NamedTuple):
    """What one contender did in one round."""

    unary: Mapping[int, Unary]
    few: Streamed
    many: Streamed


Turns = Mapping[str, list[Turn]]
Pick = Callable[[Turn], float]


def take_turn(load: Load, running: Running, seconds: float) -> Turn:
    """All loads on one contender. The first one warms it."""
    load.unary(running, connections=16, seconds=1)
    unary = {count: load.unary(running, connections=count, seconds=seconds) for count in CONNECTIONS}
    few, many = (load.streams(running, **kind, seconds=seconds) for kind in (FEW, MANY))
    await_idle(running.pid)
    return Turn(unary, few, many)


def middle(turns: Turns, name: str, pick: Pick) -> float:
    """The median of a contender's rounds."""
    return median([pick(turn) for turn in turns[name]])


def ratio(turns: Turns, name: str, other: str, pick: Pick) -> float:
    """The median of a contender's rounds, each against another's in the same round; NaN without the other."""
    pairs = zip(turns[name], turns.get(other, []), strict=False)
    ratios = [pick(one) / pick(two) for one, two in pairs]
    return median(ratios) if ratios else float("nan")


def added_ms(turns: Turns, name: str, pick: Pick) -> float:
    """What a contender adds to the engine's own time; of the engine itself, that time."""
    own = middle(turns, name, pick)
    return own if name == DIRECT or DIRECT not in turns else own - middle(turns, DIRECT, pick)


def describe(report: Report, turns: Turns, pss: Mapping[str, int]) -> None:
    """The table."""
    for name in turns:
        rates = []
        for count in CONNECTIONS:
            rate, of_nginx = middle(turns, name, _rate(count)), ratio(turns, name, NGINX, _rate(count))
            failed = sum(turn.unary[count].failed for turn in turns[name])
            rates.append(f"{rate:.0f} ({of_nginx:.3g})" + (f", {failed} failed" if failed else ""))
        sign = "" if name == DIRECT else "+"
        pairs: list[tuple[Pick, Pick]] = [
            (lambda turn: turn.unary[1].p50_ms, lambda turn: turn.unary[1].p99_ms),
            (lambda turn: turn.few.first_ms[0], lambda turn: turn.few.first_ms[1]),
            (lambda turn: turn.few.gap_ms[0], lambda turn: turn.few.gap_ms[1]),
        ]
        delays = [" / ".join(f"{added_ms(turns, name, pick):{sign}.2f}" for pick in pair) for pair in pairs]
        lost = sum(turn.few.failed + turn.many.failed for turn in turns[name])
        costs = [middle(turns, name, pick) for pick in (_request_us, _chunk_us)]
        chunk = f"{costs[1]:.1f}" + (f", {lost} streams lost" if lost else "")
        report.row(name, *rates, f"{costs[0]:.1f}", chunk, *delays, f"{pss[name] / 1e6:.0f}")


def _request_us(turn: Turn) -> float:
    return turn.unary[BUSY].cpu_us


def _chunk_us(turn: Turn) -> float:
    return turn.many.cpu_us


def _rate(connections: int) -> Pick:
    return lambda turn: turn.unary[connections].per_s


def judge(report: Report, turns: Turns) -> None:
    """A line per goal of issue 5, with everything on; and what a change is worth, where a checkout from before ran."""
    request_us, chunk_us = middle(turns, OURS, _request_us), middle(turns, OURS, _chunk_us)
    if NGINX in turns:
        of_nginx = ratio(turns, OURS, NGINX, _rate(BUSY))
        report.goal(f"at least 0.5 of nginx's requests/s, {BUSY} connections", f"{of_nginx:.2f}", of_nginx >= 0.5)
        for what, pick in (("request", _request_us), ("chunk", _chunk_us)):
            report.goal(f"CPU of a {what}, times nginx's", f"{ratio(turns, OURS, NGINX, pick):.1f}", None)
    report.goal("at most 32 us of CPU a request", f"{request_us:.1f} us", request_us <= 32)
    report.goal("at most 18 us of CPU a chunk", f"{chunk_us:.1f} us", chunk_us <= 18)
    if DIRECT in turns:
        p99_ms = added_ms(turns, OURS, lambda turn: turn.few.first_ms[1])
        report.goal("at most 1 ms added to the first chunk at p99", f"{p99_ms:+.2f} ms", p99_ms <= 1)
    if BEFORE in turns:
        costs = {"requests/s": _rate(BUSY), "CPU of a request": _request_us, "CPU of a chunk": _chunk_us}
        for what, pick in costs.items():
            report.goal(f"{what}, of what it was before", f"{ratio(turns, OURS, BEFORE, pick):.2f}", None)


def judge_held(report: Report, load: Load, running: Sequence[Running], *, quick: bool) -> None:
    """How many streams stand open on these gateways, in how much memory."""
    limit, goal = resource.getrlimit(resource.RLIMIT_NOFILE)[0], HELD[len(running)]
    # Two files each in a gateway, one in the engine and in the client.
    asked = min(500 if quick else goal, (limit - SPARE_FILES) * len(running) // 2, limit - SPARE_FILES)
    with load.held(running, asked) as held:
        met = held.held >= goal and held.pss_bytes < HELD_BYTES if asked >= goal else None
        where = "one gateway" if len(running) == 1 else f"{len(running)} gateways"
        report.goal(
            f"{goal:,} idle streams on {where} in under {HELD_BYTES // 10**6} MB",
            f"{held.held:,} of {asked:,} in {held.pss_bytes / 1e6:.0f} MB, opened in {held.took_s:.1f} s "
            f"(two files each; {limit:,} may be open here)",
            met,
        )


@contextlib.contextmanager
def field(place: Place, wanted: list[str], before: Path | None) -> Iterator[tuple[dict[str, Running], dict[str, str]]]:
    """Everyone who could be started, and why the others could not."""
    with contextlib.ExitStack() as stack:
        running, missing = {}, {}
        for name, start in contenders(before).items():
            if wanted and name not in (DIRECT, BEFORE) and not any(name.startswith(word) for word in wanted):
                continue
            print(f"starting {name}", flush=True)
            try:
                running[name] = stack.enter_context(start(place))
            except NotStarted as error:
                missing[name] = str(error)
        yield running, missing


def compare(options: argparse.Namespace, report: Report, folder: Path) -> None:
    """Start everyone, let them take turns, and tell."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    load, port = Load(cores[-1], folder), free_port()
    engine = gateway_nginx.engine(folder / "engine", port)
    place = Place(folder, cores[0], port)
    rounds, seconds = (1, 1.0) if options.quick else (ROUNDS, SECONDS)
    with (
        started(engine, core=cores[min(1, len(cores) - 1)], port=port, log=folder / "engine" / "log"),
        field(place, options.only, options.against) as (running, missing),
    ):
        turns: dict[str, list[Turn]] = defaultdict(list)
        for number in range(rounds):
            for name, contender in running.items():
                print(f"round {number + 1} of {rounds}: {name}", flush=True)
                turns[name].append(take_turn(load, contender, seconds))
        describe(report, turns, {name: pss_bytes(contender.pid) for name, contender in running.items()})
        for name, why in missing.items():
            report.row(name, f"did not take part: {why}", *[""] * (len(COLUMNS) - 2))
        if OURS in running:
            judge(report, turns)
            judge_held(report, load, [running[OURS]], quick=options.quick)
            with gateways(place, 2) as both:
                judge_held(report, load, both, quick=options.quick)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="how contenders' names begin")
    parser.add_argument("--against", type=Path, help="another checkout, whose gateway takes part too")
    return parser.parse_args()


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = _options()
    if not (shutil.which("nginx") and shutil.which("wrk") and gateway_nginx.LUA_MODULE.is_file()):
        sys.exit("error: the engine and the load are not here. Fix: apt-get install nginx libnginx-mod-http-lua wrk")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = Report("gateway", COLUMNS)
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as folder:
        compare(options, report, Path(folder))
    report.finish(keep=not (options.quick or options.only or options.against))


if __name__ == "__main__":
    main()
