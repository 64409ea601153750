"""How exactly an endpoint's traffic split is kept, over 100,000 requests: the gateway's picker alone, and the gateway.

Four deployed models get 1, 9, 30 and 60 percent. The gateway runs in a process of its own before an engine that
computes nothing (``streaming_engine.py``); who answered stands in its answers' headers. The same again with
sessions: each of 10,000 sends ten requests, and is to be answered by one deployed model throughout. An error is the
largest distance of a deployed model's share from what it is to get, in percentage points.

    make bench-traffic
    make bench-traffic ARGUMENTS="--requests 10000"
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from gateway_contenders import BENCH, KEY, Place, free_port, gateway, one_engine, started
from gateway_nginx import PATH
from gateway_streams import chat_body
from headrace.gateway.traffic import SESSION_HEADER, TrafficSplit
from headrace.resources.snapshot import RoutingSnapshot
from report import Report

SPLIT = {"1": 1, "2": 9, "3": 30, "4": 60}
"""Percent, by deployed model."""

REQUESTS, OF_A_SESSION, CONNECTIONS = 100_000, 10, 16
ANSWERED_BY = b"x-vertex-ai-deployed-model-id: "
STANDARD_ERRORS = 4


class Seen(NamedTuple):
    """Who answered, request by request: deployed model and session (empty without one), and how long all took."""

    answers: list[tuple[str, bytes]]
    seconds: float

    @property
    def error_points(self) -> float:
        """The largest distance of a share from what it is to be."""
        counts = Counter(model for model, _ in self.answers)
        return max(abs(100 * counts[model] / len(self.answers) - percent) for model, percent in SPLIT.items())

    @property
    def moved(self) -> int:
        """Sessions that more than one deployed model answered."""
        by_session: dict[bytes, set[str]] = defaultdict(set)
        for model, session in self.answers:
            if session:
                by_session[session].add(model)
        return sum(len(models) > 1 for models in by_session.values())


def sessions(requests: int, *, sticky: bool) -> Iterator[bytes]:
    """The session of each request; empty ones where there are none."""
    number = max(1, requests // OF_A_SESSION)
    for request in range(requests):
        yield b"session-%d" % (request % number) if sticky else b""


def picked(requests: int, *, sticky: bool) -> Seen:
    """The picker alone."""
    split, ready = TrafficSplit(SPLIT), frozenset(SPLIT)
    began = time.perf_counter()
    answers = [(split.pick(ready, session) or "", session) for session in sessions(requests, sticky=sticky)]
    return Seen(answers, time.perf_counter() - began)


async def asked(port: int, requests: int, *, sticky: bool) -> Seen:
    """The gateway, over so many connections at once."""
    to_do, answers = sessions(requests, sticky=sticky), list[tuple[str, bytes]]()
    began = time.perf_counter()
    await asyncio.gather(*(_ask(port, to_do, answers) for _ in range(CONNECTIONS)))
    return Seen(answers, time.perf_counter() - began)


async def _ask(port: int, to_do: Iterator[bytes], answers: list[tuple[str, bytes]]) -> None:
    body = chat_body(max_tokens=8)
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for session in to_do:
        named = b"%b: %b\r\n" % (SESSION_HEADER, session) if session else b""
        writer.write(head + named + b"\r\n" + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not answer.startswith(b"http/1.1 200"):
            raise SystemExit(f"error: the gateway answered {answer[:300]!r}")
        await reader.readexactly(int(_header(answer, b"content-length: ")))
        answers.append((_header(answer, ANSWERED_BY).decode(), session))
    writer.close()


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name)[2].partition(b"\r\n")[0]


def routed(engine_port: int) -> RoutingSnapshot:
    """One endpoint with all the deployed models, each of its own deployment, before one engine."""
    snapshot = one_engine(engine_port)
    (endpoint,) = snapshot.endpoints
    (one,) = endpoint.deployed
    (replica,) = one.replicas
    deployed = tuple(
        replace(
            one,
            id=model,
            deployment_id=f"deployment-{model}",
            traffic=percent,
            replicas=(replace(replica, id=f"replica-{model}"),),
        )
        for model, percent in SPLIT.items()
    )
    return replace(snapshot, endpoints=(replace(endpoint, deployed=deployed),))


def measure(requests: int, folder: Path) -> dict[tuple[str, bool], Seen]:
    """By who picked, and whether there were sessions."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    engine_port = free_port()
    command = [sys.executable, str(BENCH / "streaming_engine.py"), str(engine_port)]
    place = Place(folder, cores[0], engine_port)
    seen = {("picker", sticky): picked(requests, sticky=sticky) for sticky in (False, True)}
    with (
        started(command, core=cores[-1], port=engine_port, log=folder / "engine.log"),
        gateway("ours", None, place, snapshot=routed(engine_port)) as running,
    ):
        for sticky in (False, True):
            seen["gateway", sticky] = asyncio.run(asked(running.port, requests, sticky=sticky))
    return seen


def tell(report: Report, requests: int, seen: Mapping[tuple[str, bool], Seen]) -> None:
    """The table, and a line per goal."""
    chance = STANDARD_ERRORS * max(
        100 * math.sqrt(share * (1 - share) / max(1, requests // OF_A_SESSION))
        for share in (percent / 100 for percent in SPLIT.values())
    )
    for (who, sticky), one in seen.items():
        rate = len(one.answers) / one.seconds
        name = f"{who}, with sessions" if sticky else who
        report.row(name, len(one.answers), f"{one.error_points:.4f}", one.moved if sticky else "", f"{rate:.0f}")
        if sticky:
            goal = f"{who}: shares of sessions within {STANDARD_ERRORS} standard errors ({chance:.2f} points)"
            report.goal(goal, f"{one.error_points:.3f} points", one.error_points <= chance)
            report.goal(f"{who}: no session moves", f"{one.moved} did", one.moved == 0)
        else:
            goal = f"{who}: an error of at most 0.01 points over {requests:,} requests"
            report.goal(goal, f"{one.error_points:.4f} points", one.error_points <= 0.01)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="in each of the four rows (%(default)s)")
    options = parser.parse_args()
    report = Report("traffic", ("who picks", "requests", "error, points", "sessions that moved", "requests/s"))
    with tempfile.TemporaryDirectory() as folder:
        seen = measure(options.requests, Path(folder))
    tell(report, options.requests, seen)
    report.finish(keep=options.requests == REQUESTS)


if __name__ == "__main__":
    main()
