"""How long from `headrace deploy` to READY, what the idle server weighs, and the quickstart end to end.

Goals (issue 2): gateway + control + node idle under 220 MB together; the quickstart under 90 s with pip's cache warm,
and under 20 s when everything is done already.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from server_process import ServerProcess, running_server  # noqa: E402 - found by the path above

IDLE_GOAL_MB = 220
QUICKSTART_GOAL_S = 90
AGAIN_GOAL_S = 20
SETTLE_S = 5


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB, shared pages counted in full (the stricter reading)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def idle(report: Report, server: ServerProcess) -> None:
    """Weigh the three processes after a while without requests."""
    time.sleep(SETTLE_S)
    total = 0.0
    for name in ("gateway", "control", "node"):
        [pid] = server.pids(f"headrace.server.{name}")
        weight = resident_mb(pid)
        total += weight
        report.row(f"idle {name}", "", f"{weight:.0f} MB")
    for pid in server.pids("headrace.compute.shim"):
        report.row("idle shim (one per replica)", "", f"{resident_mb(pid):.0f} MB")
    report.goal(f"gateway + control + node idle < {IDLE_GOAL_MB} MB", f"{total:.0f} MB", total < IDLE_GOAL_MB)


def phases(report: Report, server: ServerProcess, model: Path) -> None:
    """Deploy the demo model through the command line and read its timeline."""
    started = time.monotonic()
    done = server.cli("deploy", str(model), "--name", "bench", "--wait", "--json")
    whole_s = time.monotonic() - started
    with server.client() as client:
        deployment = client.get("/headrace/v1/deployments").json()["deployments"][0]
        timeline = client.get(f"/headrace/v1/deployments/{deployment['id']}").json()["timeline"]
    moves = [(move["state"], move["at"]) for move in timeline]
    firsts = [move for index, move in enumerate(moves) if not index or move[0] != moves[index - 1][0]]
    for (state, at), (_, until) in itertools.pairwise(firsts):
        report.row(f"deploy: {state}", f"{until - at:.2f} s", "")
    report.row("deploy: command to READY", f"{whole_s:.2f} s", "")
    assert json.loads(done.stdout)


def quickstart(report: Report) -> None:
    """`make quickstart ONCE=1` on an empty cache and data directory (pip's own cache stays), then again."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        own = {"HEADRACE_CACHE_DIR": f"{scratch}/cache", "HEADRACE_DATA_DIR": f"{scratch}/data"}
        environment = {key: value for key, value in os.environ.items() if key != "HEADRACE_RUNTIMES_DIR"} | own
        for label, goal_s in (("quickstart, pip's cache warm", QUICKSTART_GOAL_S), ("again", AGAIN_GOAL_S)):
            started = time.monotonic()
            done = subprocess.run(
                ["make", "-C", str(ROOT), "quickstart", "ONCE=1"],
                env=environment,
                check=False,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=600,
            )
            took_s = time.monotonic() - started
            assert done.returncode == 0, done.stdout
            report.row(label, f"{took_s:.1f} s", "")
            report.goal(f"{label} < {goal_s} s", f"{took_s:.1f} s", took_s < goal_s)


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report("deploy", ("what", "time", "memory"))
    model = Path(os.environ["HEADRACE_TEST_MODEL"])
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch,
        running_server(Path(scratch) / "data") as server,
    ):
        phases(report, server, model)
        idle(report, server)
    quickstart(report)
    report.finish()


if __name__ == "__main__":
    main()
