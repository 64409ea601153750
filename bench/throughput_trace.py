"""The conversation trace, scaled to this machine: does the autoscaler keep the SLO, and what does it cost?

The hour of requests (bench/data/README.md) is played in minutes: fewer of them, shorter ones, so that on average they
are so much work that the most replicas are half busy. Real engines (SmolLM2-135M), a thread each: another
deployment that nobody asks holds a core, so that two replicas are twice one. In turns:

* ``work``: a throughput is sold, from one replica to two, and they come and go by work;
* ``requests``: from one to two by `request_count`, at the number that work would have come to;
* ``always 1`` and ``always 2``.

What a simulation makes of the same requests, by the same profile, is in `make bench-throughput_simulation`.

    make bench-throughput_trace
    make bench-throughput_trace ARGUMENTS=--quick      # half a minute each, once; nothing is kept
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import psutil
import uvloop

from engine_client import Job, Measured, Prompts, Server, replay
from engine_contenders import ServerProcess, running_server
from headrace.capacity.autoscaling import Law
from headrace.capacity.simulation import Outcome, Scale, Tenant, simulate
from headrace.capacity.units import SLICES, chunk, share
from headrace.cli.simulate import read_trace
from headrace.resources.autoscaling import Metric
from headrace.resources.profiles import Carried, Cost
from report import Report, median

TRACE = Path(__file__).resolve().parent / "data" / "azure-llm-inference-2023-conv.csv.gz"
COLUMNS = (
    "replicas by",
    "round",
    "requests",
    "work in the SLO %",
    "replica-hours",
    "first p99 s",
    "most",
    "CPU",
)
LEAST, MOST = 1, 2
BUSY = 0.5
"""Of the most replicas, on average; in the trace's busiest minutes about 0.75."""

SHORTER = 8
ROUNDS, SECONDS = 2, 240.0
QUICK_SECONDS = 30.0
LOWER_AFTER_S = 30.0
"""Minutes of the trace are seconds here, so replicas go sooner than after five minutes."""

FIRST_S, GAP_S = 6.0, 0.5
"""What is to be kept: of one thread, whose prompts take three times as long as the two seconds of the product allow."""

QUICK_SLO_S = 30.0, 3.0
LOOK_S = 1.0
DEPLOYMENTS = "/headrace/v1/deployments"
OVER = frozenset({"GONE", "FAILED"})
NAME = "river"
PROFILE = "profile"
"""Of the row that has what a replica was measured to carry, and the seconds in which one starts."""

PLACES_UNSOLD = 256
MOST_CPU = 0.3


class Way(NamedTuple):
    """One way to decide how many replicas run."""

    name: str
    options: tuple[str, ...]
    scale: Scale


class Seen(NamedTuple):
    """What came of a run.

    Attributes:
        attainment: Share of the offered work that was answered within the profile's latencies.
        replica_hours: Of replicas that were there, ready or not.
        firsts_s: Times to first token.
        cpu: Cores that the load took.
    """

    attainment: float
    replica_hours: float
    firsts_s: list[float]
    most: int
    cpu: float


def scaled(carried: Carried, seconds: float, seed: int) -> tuple[tuple[float, int, int], ...]:
    """Some of the trace's requests, at random, as many as are the work that is wanted."""
    requests = read_trace(TRACE, 1.0)
    faster = requests[-1][0] / seconds
    shorter = [(at / faster, max(1, prompt // SHORTER), max(1, output // SHORTER)) for at, prompt, output in requests]
    work = sum(carried.units(prompt, output) for _, prompt, output in shorter)
    chance = random.Random(seed)
    return tuple(one for one in shorter if chance.random() < BUSY * MOST * seconds / work)


def ways(carried: Carried, requests: Sequence[tuple[float, int, int]], start_s: float) -> list[Way]:
    """All of them; what `requests` goes by is what work would have come to for requests like these."""
    mean = sum(carried.units(prompt, output) for _, prompt, output in requests) / len(requests)
    per_minute = max(1, round(0.9 * 60.0 / mean))
    law = Law(lower_after_s=LOWER_AFTER_S)
    between = {"least": LEAST, "most": MOST, "start_s": start_s, "law": law}
    by_requests = Scale(**between, metric=Metric.REQUESTS, target=per_minute, places=PLACES_UNSOLD)
    fixed = [
        Way(f"always {many}", ("--replicas", str(many)), Scale(least=many, most=many, places=PLACES_UNSOLD))
        for many in (LEAST, MOST)
    ]
    return [
        Way("work", ("--throughput", throughput()), Scale(**between, metric=Metric.WORK, target=90)),
        Way("requests", ("--replicas", str(LEAST)), by_requests),
        *fixed,
    ]


def throughput() -> str:
    """What is sold: as many chunks as the replicas have slices."""
    return f"{LEAST * SLICES}x:{MOST * SLICES}x"


@contextmanager
def deployed(server: ServerProcess, way: Way) -> Iterator[str]:
    """The version that was measured, as the way has it and all of its replicas ready; gives its deployment's id."""
    server.cli("endpoints", "deploy", NAME, NAME, *way.options, timeout_s=900)
    deployment = deployment_of(server)
    try:
        body = bounds_of(way.scale)
        if body:
            with server.client() as client:
                client.patch(f"{DEPLOYMENTS}/{deployment}", json=body).raise_for_status()
        while running(server, deployment, ready=True) < pool(server, deployment)["wanted_replicas"]:
            time.sleep(0.5)
        unpin(server)
        yield deployment
    finally:
        server.cli("undeploy", NAME, "--keep-endpoint", "--yes", "--wait")


def bounds_of(scale: Scale) -> dict[str, Any]:
    """What is changed of a deployment so that it scales like this; what was sold has its bounds from that."""
    if scale.metric is None:
        return {}
    if scale.metric is Metric.WORK:
        return {"autoscaling": {"targets": {}, "lower_after_s": LOWER_AFTER_S}}
    targets = {str(scale.metric): scale.target}
    autoscaling = {"targets": targets, "lower_after_s": LOWER_AFTER_S}
    return {"min_replicas": scale.least, "max_replicas": scale.most, "autoscaling": autoscaling}


def deployment_of(server: ServerProcess) -> str:
    """Of the one deployed model of the endpoint that is asked."""
    with server.client() as client:
        endpoints = client.get("/headrace/v1/endpoints").raise_for_status().json()["endpoints"]
    [found] = [
        one["deployment_id"] for each in endpoints if each["display_name"] == NAME for one in each["deployed_models"]
    ]
    return str(found)


def pool(server: ServerProcess, deployment: str) -> dict[str, Any]:
    """A deployment, as it is now."""
    with server.client() as client:
        found: dict[str, Any] = client.get(f"{DEPLOYMENTS}/{deployment}").raise_for_status().json()
        return found


def running(server: ServerProcess, deployment: str, *, ready: bool = False) -> int:
    """Replicas that are there, or that are ready."""
    states = [one["state"] for one in pool(server, deployment)["replicas"]]
    return sum(state == "READY" if ready else state not in OVER for state in states)


def unpin(server: ServerProcess) -> None:
    """Give every engine any core: each has one thread, and the one that nobody asks needs none."""
    for shim in server.pids("headrace.compute.shim"):
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(shim).children(recursive=True):
                for thread in process.threads():
                    with suppress(OSError):
                        os.sched_setaffinity(thread.id, os.sched_getaffinity(0))


async def watched(server: ServerProcess, deployment: str, counts: list[int]) -> None:
    """Count replicas now and then, until this is cancelled."""
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30.0) as client:
        while True:
            states = [one["state"] for one in (await client.get(f"{DEPLOYMENTS}/{deployment}")).json()["replicas"]]
            counts.append(sum(state not in OVER for state in states))
            if len(counts) > 1 and counts[-1] != counts[-2]:
                await asyncio.to_thread(unpin, server)
            await asyncio.sleep(LOOK_S)


async def run(
    server: ServerProcess, deployment: str, requests: Sequence[tuple[float, int, int]], carried: Carried, seed: int
) -> Seen:
    """Every request at its time."""
    words, counts = Prompts(seed=seed), [running(server, deployment)]
    target = Server(NAME, server.key, port=httpx.URL(server.url).port or 80)
    jobs = [Job(words.text(prompt), output, at) for at, prompt, output in requests]
    began_s, cpu_s = time.perf_counter(), time.process_time()
    watching = asyncio.create_task(watched(server, deployment, counts))
    answers: list[Measured] = await asyncio.gather(*(replay(target, [job]) for job in jobs))
    watching.cancel()
    took_s, cpu = time.perf_counter() - began_s, time.process_time() - cpu_s
    offered = within = 0.0
    for (_, prompt, output), one in zip(requests, answers, strict=True):
        units = carried.units(prompt, output)
        offered += units
        within += units * sum(kept(each.first_s, each.gaps_s, carried) for each in one.answers)
    firsts = [each.first_s for one in answers for each in one.answers]
    hours = sum(counts) / len(counts) * took_s / 3600.0
    return Seen(within / offered, hours, firsts, max(counts), cpu / took_s)


def kept(first_s: float, gaps_s: Sequence[float], carried: Carried) -> bool:
    """Whether an answer was within the profile's latencies."""
    return first_s <= carried.first_s and sum(gaps_s) / max(len(gaps_s), 1) <= carried.gap_s


def simulated(way: Way, carried: Carried, number: int, seconds: float) -> Outcome:
    """What a simulation makes of a round."""
    of_a_replica = share(carried, SLICES * chunk(carried))
    sold = {"guaranteed": LEAST * of_a_replica, "most": MOST * of_a_replica} if way.name == "work" else {}
    tenant = Tenant(name="trace", arrivals=scaled(carried, seconds, number), **sold)
    return simulate([tenant], carried, way.scale, seconds=seconds)


def show(report: Report, way: Way, number: int, asked: int, seen: Seen) -> None:
    """A row of a real run."""
    p99_s = sorted(seen.firsts_s)[min(int(0.99 * len(seen.firsts_s)), len(seen.firsts_s) - 1)] if seen.firsts_s else 0.0
    cells = (f"{100 * seen.attainment:.1f}", f"{seen.replica_hours:.4f}", f"{p99_s:.2f}", seen.most, f"{seen.cpu:.0%}")
    report.row(way.name, number, asked, *cells)
    print(f"  {way.name:12} round {number}: {' · '.join(map(str, cells))}", flush=True)


def measured(server: ServerProcess, *, quick: bool) -> tuple[Carried, float]:
    """What a replica with one thread carries, by `headrace profile`, and how long one takes to start.

    What is sold afterwards goes by the same profile, for the product keeps it.

    Raises:
        SystemExit: It keeps the latencies with no request at all.
    """
    first_s, gap_s = QUICK_SLO_S if quick else (FIRST_S, GAP_S)
    grid = ("--prompts", "32,128,256", "--outputs", "8,32", "--at", "1,8" if quick else "1,4,8")
    options = (*grid, "--first-token", str(first_s), "--inter-token", str(gap_s), "--seconds", "1" if quick else "5")
    server.cli("deploy", os.environ["HEADRACE_TEST_MODEL"], "--name", NAME)
    found = json.loads(server.cli("profile", NAME, *options, "--json", timeout_s=900).stdout)
    timeline = pool(server, deployment_of(server))["timeline"]
    server.cli("undeploy", NAME, "--keep-endpoint", "--yes", "--wait")
    cost = msgspec.convert(found["fit"]["cost"], Cost)
    carried = Carried(cost=cost, concurrency=found["concurrency"], first_s=first_s, gap_s=gap_s, measured=True)
    print(f"profile: {carried}", flush=True)
    if not carried.concurrency:
        sys.exit("error: not one request at a time keeps the latencies here; measure on an idle machine")
    at: dict[str, float] = {}
    for move in timeline:
        at.setdefault(move["state"], move["at"])
    return carried, at["READY"] - at["STARTING"]


def require_same(found: dict[str, Any], carried: Carried, way: Way) -> None:
    """Hold that what is sold goes by what was measured here.

    Raises:
        SystemExit: It goes by something else.
    """
    if way.name == "work" and msgspec.convert(found["carried"]["cost"], Cost) != carried.cost:
        sys.exit(f"error: what was sold does not go by the profile: {found['carried']}")


def measure(report: Report, server: ServerProcess, *, quick: bool) -> None:
    """All rounds of all ways, and the goals."""
    rounds, seconds = (1, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    server.cli("deploy", os.environ["HEADRACE_TEST_MODEL"], "--name", "stone")
    carried, start_s = measured(server, quick=quick)
    report.row(PROFILE, msgspec.json.encode(carried).decode(), f"{start_s:.1f}", *[""] * (len(COLUMNS) - 3))
    by_way: dict[str, list[Seen]] = {}
    for number in range(1, rounds + 1):
        requests = scaled(carried, seconds, seed=number)
        for way in ways(carried, requests, start_s):
            with deployed(server, way) as deployment:
                require_same(pool(server, deployment), carried, way)
                seen = uvloop.run(run(server, deployment, requests, carried, number))
            show(report, way, number, len(requests), seen)
            by_way.setdefault(way.name, []).append(seen)
    for name, all_seen in by_way.items():
        attained = f"{median([one.attainment for one in all_seen]):.1%} of the work in the SLO"
        hours = f"{median([one.replica_hours for one in all_seen]):.3f} replica-hours"
        counts = max(one.cpu for one in all_seen) < MOST_CPU
        report.goal(
            f"{name}: the trace", f"{attained}, {hours}" if counts else "the load took too much of a core", None
        )


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a minute each, once; nothing is kept")
    options = parser.parse_args()
    report = Report("throughput_trace", COLUMNS)
    with (
        tempfile.TemporaryDirectory(prefix="hr-bench-") as scratch,
        running_server(Path(scratch) / "server") as server,
    ):
        measure(report, server, quick=options.quick)
    report.finish(keep=not options.quick)


if __name__ == "__main__":
    main()
