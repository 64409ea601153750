"""Two replicas on half of the cores each, against one replica on all of them: do neighbours fight?

Each is deployed in turn through the whole product, which assigns the cores (`headrace.node.cores`), and asked by the
same client for the same tokens. Rounds alternate, so that what else the machine does meets both.

Goal (issue 3): two replicas on two cores reach at least 0.9 of one replica with both.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from load import Target, stream
from report import Report, median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from server_process import ServerProcess, running_server  # noqa: E402 - found by the path above

GOAL = 0.9
ROUNDS = 3
CONCURRENCIES = (8, 32)
"""Streams in all. Two replicas read the weights twice for a step; that costs most where few streams share a reading."""
CHUNKS = 64
BREADTH = "transformers"
"""Measured besides the platform's own choice: the runtime whose threads were seen to fight."""

DEPLOYMENTS = "/headrace/v1/deployments"


def until_all_ready(server: ServerProcess, replicas: int) -> str:
    """Wait until every replica serves, not only the first; returns the runtime's name."""
    with server.client() as client:
        while True:
            [found] = [one for one in client.get(DEPLOYMENTS).json()["deployments"] if one["state"] == "READY"]
            deployment = client.get(f"{DEPLOYMENTS}/{found['id']}").json()
            if sum(one["state"] == "READY" for one in deployment["replicas"]) == replicas:
                return str(deployment["runtime"])
            time.sleep(0.2)


async def tokens_per_s(target: Target, streams: int) -> float:
    """All streams together, from the first request to the last token."""
    await asyncio.gather(*(stream(target, chunks=4) for _ in range(streams)))
    began = time.perf_counter()
    await asyncio.gather(*(stream(target, chunks=CHUNKS) for _ in range(streams)))
    return streams * CHUNKS / (time.perf_counter() - began)


def measure(server: ServerProcess, model: Path, runtime: str, replicas: int) -> tuple[dict[int, float], str]:
    """Deploy, load and undeploy; tokens per second by the number of streams, and the runtime's name."""
    asked = ["--runtime", runtime] if runtime else []
    server.cli("deploy", str(model), "--name", "bench", "--replicas", str(replicas), *asked, "--wait")
    name = until_all_ready(server, replicas)
    port = int(server.url.rpartition(":")[2])
    target = Target(model="bench", key=server.key, port=port)
    rates = {streams: asyncio.run(tokens_per_s(target, streams)) for streams in CONCURRENCIES}
    server.cli("undeploy", "bench", "--yes", "--wait")
    return rates, name


def compare(report: Report, server: ServerProcess, model: Path, runtime: str) -> str:
    """All rounds of one runtime; returns its name."""
    ratios: dict[int, list[float]] = {streams: [] for streams in CONCURRENCIES}
    name = ""
    for number in range(ROUNDS):
        one, name = measure(server, model, runtime, 1)
        two, name = measure(server, model, runtime, 2)
        for streams in CONCURRENCIES:
            ratio = two[streams] / one[streams]
            ratios[streams].append(ratio)
            report.row(name, streams, number + 1, f"{one[streams]:.1f}", f"{two[streams]:.1f}", ratio)
    for streams, measured in ratios.items():
        ratio = median(measured)
        goal = f"two replicas of {name}, {streams} streams ≥ {GOAL} × one with all cores"
        report.goal(goal, f"{ratio:.2f}", ratio >= GOAL)
    return name


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report(
        "replicas", ("runtime", "streams", "round", "one replica, all cores, tokens/s", "two, half each", "ratio")
    )
    model = Path(os.environ["HEADRACE_TEST_MODEL"])
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch,
        running_server(Path(scratch) / "data") as server,
    ):
        chosen = compare(report, server, model, "")
        if chosen != BREADTH:
            compare(report, server, model, BREADTH)
    report.finish()


if __name__ == "__main__":
    main()
