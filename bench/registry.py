"""How long lists and single reads take in a large registry: 10,000 models, 1,000 endpoints, 100,000 operations.

The API of the control process is served as it is there, in a process of its own, on SQLite and on PostgreSQL, and one
client asks it over a kept connection. Each database is measured twice, with a hundredth of the rows and with all.
Goal (issue 6): a 99th percentile under 20 ms, and flat.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psutil

from registry_rows import KEY, MODELS_OF_A_LABEL, SCOPE, Size, fill
from report import Report, median, quantile

SIZES = {"small": Size(100, 10, 1_000), "whole": Size(10_000, 1_000, 100_000)}
GOAL_MS = 20.0
FLAT = 2.0
"""How much slower a hundred times the rows may make a request: what noise does on a shared machine."""
ALIKE = 1.3
"""How much longer an answer may be and still be held against the other: ten endpoints are no page of a hundred."""
WARM_UP = 20
SERVER = Path(__file__).with_name("registry_server.py")
L = f"/v1/{SCOPE}"
COLUMNS = ("database", "request", "answer, kB", "small: p50, ms", "p99", "CPU", "whole: p50, ms", "p99", "CPU")


class Seen(NamedTuple):
    """What one kind of request took.

    Attributes:
        cpu_ms: Of the server's process, a request; not of PostgreSQL's.
    """

    size_kb: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float


def requests(size: Size, random_: random.Random) -> dict[str, Iterator[str]]:
    """Paths of each kind of request, without end."""

    def paths(template: str, most: int) -> Iterator[str]:
        while True:
            yield template.format(number=random_.randrange(most))

    label = quote('labels.team="t7"')
    return {
        "get a model": paths(f"{L}/models/m-{{number}}", size.models),
        "get a version by alias": paths(f"{L}/models/m-{{number}}@default", size.models),
        "get an endpoint": paths(f"{L}/endpoints/e-{{number}}", size.endpoints),
        "get an operation": paths(f"/ui/{SCOPE}/operations/o-{{number}}", size.operations),
        "list models": paths(f"{L}/models?pageSize=100", 1),
        "list models by name": paths(f"{L}/models?orderBy=display_name", 1),
        "list models by update": paths(f"{L}/models?orderBy=update_time%20desc", 1),
        "list models of a name": paths(
            f"{L}/models?filter=" + quote('display_name="model {number}"', safe="{}"), size.models
        ),
        f"list models of a label ({MODELS_OF_A_LABEL:.0%})": paths(f"{L}/models?filter={label}", 1),
        "list models of a label (one)": paths(
            f"{L}/models?filter=" + quote("labels.only=o{number}", safe="{}"), size.models
        ),
        "list versions": paths(f"{L}/models/m-{{number}}:listVersions", size.models),
        "list endpoints": paths(f"{L}/endpoints?pageSize=100", 1),
        "list endpoints of a name": paths(
            f"{L}/endpoints?filter=" + quote('display_name="endpoint {number}"', safe="{}"), size.endpoints
        ),
        "list operations": paths(f"{L}/operations?pageSize=100", 1),
        "list running operations": paths(f"{L}/operations?filter=done%3Dfalse", 1),
        "list a model's operations": paths(f"{L}/models/m-{{number}}/operations", size.models),
        "list operations, native": paths("/headrace/v1/operations?limit=100&project=bench&location=us-central1", 1),
    }


@contextlib.contextmanager
def served(url: str) -> Iterator[tuple[http.client.HTTPConnection, psutil.Process]]:
    """The API on this database: a connection to it, and its process."""
    process = subprocess.Popen([sys.executable, str(SERVER), url], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        port = int(process.stdout.readline())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        yield connection, psutil.Process(process.pid)
        connection.close()
    finally:
        process.terminate()
        process.wait()


def timed(connection: http.client.HTTPConnection, path: str) -> tuple[float, bytes]:
    """Milliseconds until an answer was whole, and the answer."""
    began = time.perf_counter()
    connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
    answer = connection.getresponse()
    body = answer.read()
    took = (time.perf_counter() - began) * 1000
    if answer.status != 200:
        sys.exit(f"error: {path} was answered with {answer.status}: {body[:500].decode()}")
    return took, body


def measured(url: str, size: Size, count: int) -> dict[str, Seen]:
    """Every kind of request, one after the other; and the last page of the models, which needs all tokens before it."""
    seen = {}
    with served(url) as (connection, process):

        def look(ask: Callable[[], list[tuple[float, bytes]]]) -> Seen:
            before = process.cpu_times()
            answers = ask()
            after = process.cpu_times()
            times = [took for took, _ in answers]
            cpu_s = after.user + after.system - before.user - before.system
            size_kb = max(len(body) for _, body in answers) / 1000
            return Seen(size_kb, 1000 * cpu_s / len(times), median(times), quantile(times, 0.99))

        for what, paths in requests(size, random.Random(7)).items():
            for _ in range(WARM_UP):
                timed(connection, next(paths))
            seen[what] = look(lambda paths=paths: [timed(connection, next(paths)) for _ in range(count)])
        seen["list models, some later page"] = look(lambda: _pages(connection, count))
    return seen


def _pages(connection: http.client.HTTPConnection, count: int) -> list[tuple[float, bytes]]:
    answers: list[tuple[float, bytes]] = []
    token = ""
    while len(answers) < count:
        answers.append(timed(connection, f"{L}/models?pageSize=50" + (f"&pageToken={token}" if token else "")))
        token = json.loads(answers[-1][1]).get("nextPageToken", "")
    return answers


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL of our own, and its URL; run by nobody where we are root, whom it refuses."""
    programs = [shutil.which("initdb"), shutil.which("pg_ctl")]
    if None in programs:
        sys.exit("error: there is no PostgreSQL here (initdb, pg_ctl). Fix: install it, or give --only sqlite.")
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": folder}
    data = folder / "data"

    def run(*command: str | Path | None) -> None:
        subprocess.run([each for each in command if each], check=True, stdout=subprocess.DEVNULL, **user)

    run(programs[0], "-D", data, "-U", "headrace", "-A", "trust", "--no-sync", "-E", "UTF8")
    options = f"-c listen_addresses= -c unix_socket_directories={folder}"
    run(programs[1], "-D", data, "-l", folder / "log", "-w", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://headrace@/postgres?host={folder}"
    finally:
        run(programs[1], "-D", data, "-m", "immediate", "-w", "stop")


@contextlib.contextmanager
def database(kind: str) -> Iterator[str]:
    """An empty database of a kind."""
    with tempfile.TemporaryDirectory(prefix="headrace-registry-") as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/headrace.db"
            return
        with postgresql(Path(folder)) as url:
            yield url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="one database; the results are not kept")
    parser.add_argument("--count", type=int, default=400, help="requests of each kind")
    options = parser.parse_args()
    report = Report("registry", COLUMNS)
    for kind in [options.only] if options.only else ["sqlite", "postgresql"]:
        seen = {}
        for name, size in SIZES.items():
            with database(kind) as url:
                fill(url, size)
                seen[name] = measured(url, size, options.count)
        for what, whole in seen["whole"].items():
            small = seen["small"][what]
            cells = (small.p50_ms, small.p99_ms, small.cpu_ms, whole.p50_ms, whole.p99_ms, whole.cpu_ms)
            report.row(kind, what, whole.size_kb, *cells)
        worst = max(seen["whole"].items(), key=lambda pair: pair[1].p99_ms)
        report.goal(
            f"{kind}: p99 under {GOAL_MS:g} ms", f"{worst[1].p99_ms:.1f} ms ({worst[0]})", worst[1].p99_ms < GOAL_MS
        )
        alike = {what: one for what, one in seen["whole"].items() if one.size_kb <= ALIKE * seen["small"][what].size_kb}
        grown = {what: one.p50_ms / seen["small"][what].p50_ms for what, one in alike.items()}
        most = max(grown, key=lambda what: grown[what])
        told = f"{grown[most]:.1f} times the median of a hundredth of the rows ({most})"
        report.goal(f"{kind}: flat, no median over {FLAT:g} times", told, grown[most] <= FLAT)
    report.finish(keep=not options.only)


if __name__ == "__main__":
    main()
