"""Does a client see tokens as they are made? Tokens every 5, 20, 100 ms, through a gateway with everything on.

The engine writes into each token the moment at which it sent it (``streaming_engine.py``), and the client, on the same
machine and clock, notes when it came: so each gap is compared with the same gap as the engine made it, and an engine
that is late itself does not count. The gateway, with a core to itself, checks a key, counts its prompts for its limits,
meters, logs, marks answers for browsers, is scraped once a second, and is asked by clients that would take gzip. It is
asked over plain TCP and over TLS, alone and beside hundreds of streams of a usual pace, whose requests begin and end
all the time. The engine asked directly, which then runs on the gateway's core, shows what the machine adds by itself.

Goal (issue 5): less than 2 ms are added to the spacing at p99.

    make bench-streaming ARGUMENTS="--quick"
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_contenders import KEY, Place, Running, free_port, gateway, started
from gateway_load import LATE_S, await_idle
from headrace.resources.layout import Layout
from headrace.resources.limits import MOST_PER_MINUTE, KeyLimits
from headrace.server.tls.certify import certify
from headrace.server.tls.names import LOCAL_NAMES
from report import Report, median
from streaming_client import HOST

BENCH = Path(__file__).resolve().parent
SPACINGS_MS = (5, 20, 100)
WATCHED, LASTS_S = 16, 1.0
"""Streams that are looked at, and how long each of them is."""

OTHERS, OTHERS_DELAY_MS, OTHERS_CHUNKS = 400, 50, 40
"""Streams beside them: of a usual pace, two seconds long."""

ROUNDS, SECONDS = 3, 3.0
SCRAPED_EVERY_S = 1.0
GOAL_MS = 2.0
DIRECT, PLAIN, TLS = "engine asked directly", "gateway", "gateway, TLS"

COLUMNS = ("asked", "tokens every", "other streams", "gap p50/p99 ms", "gap changed by p50/p99 ms")
COLUMNS += ("engine to client p50/p99 ms", "tokens that came with the one before", "tokens")


@dataclass(frozen=True)
class Target:
    """Whom the client asks.

    Attributes:
        running: Its process.
        authority: Whose certificates it shows; empty where it speaks no TLS.
        scraped: The port at which its metrics are asked for, if it has any.
    """

    running: Running
    authority: str = ""
    scraped: int | None = None


@dataclass(frozen=True)
class Load:
    """The clients' core, and how much they ask."""

    core: int
    others: int
    seconds: float

    def measure(self, target: Target, spacing_ms: int, *, beside: bool) -> dict[str, Any]:
        """What the watched streams saw."""
        with self._others(target) if beside else contextlib.nullcontext():
            options = ["--streams", str(WATCHED), "--delay-ms", str(spacing_ms), "--seconds", str(self.seconds)]
            options += ["--chunks", str(round(LASTS_S * 1000 / spacing_ms))]
            with subprocess.Popen(self._client(target, options), stdout=subprocess.PIPE, text=True) as client:
                while True:
                    _scrape(target)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        client.wait(SCRAPED_EVERY_S)
                        break
                seen = _last_line(client)
        await_idle(target.running.pid)
        return seen

    @contextlib.contextmanager
    def _others(self, target: Target) -> Iterator[None]:
        options = ["--streams", str(self.others), "--chunks", str(OTHERS_CHUNKS), "--delay-ms", str(OTHERS_DELAY_MS)]
        command = self._client(target, options)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin
            assert client.stdout
            client.stdout.readline()
            yield
            client.stdin.close()
            failed = _last_line(client)["failed"]
            if failed:
                sys.exit(f"error: {failed} of the streams beside broke off")

    def _client(self, target: Target, options: list[str]) -> list[str]:
        program = [sys.executable, str(BENCH / "streaming_client.py"), "--port", str(target.running.port), "--key", KEY]
        authority = ["--authority", target.authority] if target.authority else []
        return ["taskset", "-c", str(self.core), *program, *authority, *options]


def _last_line(client: subprocess.Popen[str]) -> dict[str, Any]:
    assert client.stdout
    lines = client.stdout.read().strip().splitlines()
    if client.wait(LATE_S) or not lines:
        sys.exit(f"error: a client ended with {client.returncode}")
    said: dict[str, Any] = json.loads(lines[-1])
    return said


def _scrape(target: Target) -> None:
    if target.scraped is not None:
        connection = http.client.HTTPConnection(HOST, target.scraped, timeout=LATE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {KEY}"})
            assert connection.getresponse().read()


@contextlib.contextmanager
def targets(folder: Path, cores: list[int]) -> Iterator[dict[str, Target]]:
    """The engine, a second one behind the gateway, and the gateway's two ports."""
    near, behind = free_port(), free_port()
    engine = [sys.executable, str(BENCH / "streaming_engine.py")]
    place = Place(folder, cores[0], behind)
    layout = Layout(folder / "gateway")
    layout.data_dir.mkdir(mode=0o700)
    certify(layout, LOCAL_NAMES, now=datetime.datetime.now(datetime.UTC))
    pem = str(layout.tls_certificate)
    with socket.create_server((HOST, 0), backlog=2048) as listener:
        options = ["--tls-listen-fd", str(listener.fileno()), "--tls-certificate", pem, "--tls-key", pem]
        options += ["--cors-origin", "https://bench.example"]
        limits = KeyLimits(requests_per_minute=MOST_PER_MINUTE, tokens_per_minute=MOST_PER_MINUTE)
        with (
            started([*engine, str(near)], core=cores[0], port=near, log=folder / "near.log") as direct,
            started([*engine, str(behind)], core=cores[-1], port=behind, log=folder / "behind.log"),
            gateway("gateway", None, place, limits=limits, more=options, pass_fds=[listener.fileno()]) as plain,
        ):
            tls = Running(plain.pid, listener.getsockname()[1])
            yield {
                DIRECT: Target(direct),
                PLAIN: Target(plain, scraped=plain.port),
                TLS: Target(tls, str(layout.tls_authority), plain.port),
            }


Case = tuple[str, int, bool]
"""Who is asked, milliseconds between tokens, whether others stream beside."""

Found = dict[Case, list[dict[str, Any]]]


def compare(report: Report, load: Load, asked: dict[str, Target], rounds: int) -> None:
    """All cases in turn, some rounds."""
    found: Found = defaultdict(list)
    for number in range(rounds):
        for beside in (False, True):
            for spacing_ms in SPACINGS_MS:
                for name, target in asked.items():
                    print(f"round {number + 1} of {rounds}: {name}, {spacing_ms} ms, others: {beside}", flush=True)
                    found[name, spacing_ms, beside].append(load.measure(target, spacing_ms, beside=beside))
    for (name, spacing_ms, beside), seen in found.items():
        cells = [_pair(seen, what) for what in ("gap_ms", "change_ms", "delay_ms")]
        tokens = sum(one["tokens"] for one in seen)
        together = sum(one["together"] for one in seen) / tokens
        others = load.others if beside else 0
        report.row(name, f"{spacing_ms} ms", others, *cells, f"{together:.2%}", tokens)
    for name in (PLAIN, TLS):
        for beside in (False, True):
            judge(report, found, name, f"beside {load.others} streams" if beside else "alone", beside=beside)
    failed = sum(one["failed"] for seen in found.values() for one in seen)
    report.goal("streams that broke off or came compressed: none", str(failed), failed == 0)


def judge(report: Report, found: Found, name: str, where: str, *, beside: bool) -> None:
    """One line for all spacings: what is added at p99 to what the machine does to them by itself, median of rounds."""
    added = []
    for spacing_ms in SPACINGS_MS:
        rounds = zip(found[name, spacing_ms, beside], found[DIRECT, spacing_ms, beside], strict=True)
        added.append(median([one["change_ms"][1] - own["change_ms"][1] for one, own in rounds]))
    report.goal(
        f"{name}, {where}: less than {GOAL_MS:g} ms added to the spacing at p99, tokens every "
        f"{', '.join(map(str, SPACINGS_MS))} ms",
        f"{', '.join(f'{ms:+.2f}' for ms in added)} ms",
        max(added) < GOAL_MS,
    )


def _pair(seen: list[dict[str, Any]], what: str) -> str:
    return " / ".join(f"{median([one[what][place] for one in seen]):.2f}" for place in (0, 1))


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--others", type=int, default=OTHERS, help="streams beside the watched ones")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    rounds, seconds = (1, 1.0) if options.quick else (ROUNDS, SECONDS)
    report = Report("streaming", COLUMNS)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as folder, targets(Path(folder), cores) as asked:
        compare(report, Load(cores[-1], options.others, seconds), asked, rounds)
    report.goal("the machine's load before it began", f"{before:.1f} on {len(cores)} cores", None)
    report.finish(keep=not options.quick and options.others == OTHERS)


if __name__ == "__main__":
    main()
