"""What the gateway adds: time to first chunk, CPU per request and per chunk, against the same engine asked directly.

Two upstreams. A stand-in engine (no computation, the same wire) isolates the gateway, whose CPU is read from the
kernel, so that a slow load generator does not count. The real engine with the demo model shows what a user feels.
Direct and through the gateway alternate within one run; read the ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import uvloop

from load import Target, stream, unary
from report import Report, median, quantile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from headrace.resources.access import EVERY_PROJECT, Principal, Role, secret_hash  # noqa: E402
from headrace.resources.layout import Layout  # noqa: E402
from headrace.resources.names import DEFAULT_SCOPE  # noqa: E402
from headrace.resources.snapshot import (  # noqa: E402
    DeployedRoute,
    EndpointRoute,
    KeyRoute,
    ReplicaRoute,
    RoutingSnapshot,
)
from server_process import running_server  # noqa: E402 - found by the path above

KEY, NONCE, MODEL = "hr-bench", "nonce", "bench"
UNARY_REQUESTS = 3000
CONNECTIONS = 16
STREAMS, CHUNKS, DELAY_MS = 32, 50, 20
REAL_STREAMS = 30


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def standin(path: Path) -> Iterator[None]:
    """The stand-in engine in a process of its own."""
    command = [sys.executable, str(ROOT / "tests" / "standin.py"), "--uds", str(path), "--name", MODEL]
    with subprocess.Popen(command, env=os.environ | {"HEADRACE_ENGINE_TOKEN": NONCE}) as process:
        try:
            _await(path.exists)
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def gateway(layout: Layout, engine: Path) -> Iterator[tuple[int, int]]:
    """The gateway's process alone, routing to one engine; yields its pid and port."""
    layout.run_dir.mkdir(parents=True, mode=0o700)
    layout.snapshot.parent.mkdir()
    layout.internal_token.write_text(secrets.token_urlsafe())
    replica = ReplicaRoute(id="1", epoch=1, address=f"unix:{engine}", nonce=NONCE)
    deployed = DeployedRoute(
        id="2",
        deployment_id="3",
        traffic=100,
        model=DEFAULT_SCOPE.name("models", "4"),
        model_version="1",
        model_display_name=MODEL,
        served_name=MODEL,
        max_model_len=4096,
        created_at=0,
        replicas=(replica,),
    )
    principal = Principal(key_id="5", name="bench", project=EVERY_PROJECT, role=Role.ADMIN)
    snapshot = RoutingSnapshot(
        generation=1,
        endpoints=(EndpointRoute(scope=DEFAULT_SCOPE, id="6", display_name=MODEL, deployed=(deployed,)),),
        keys=(KeyRoute(secret_hash=secret_hash(KEY), principal=principal),),
    )
    layout.snapshot.write_bytes(msgspec.json.encode(snapshot))
    with contextlib.closing(_listener()) as listener:
        told, tell = os.pipe()
        options = ["--data-dir", str(layout.data_dir), "--parent", str(os.getpid()), "--notify-fd", str(tell)]
        options += ["--listen-fd", str(listener.fileno()), "--drain-timeout-s", "5"]
        command = [sys.executable, "-m", "headrace.server.gateway", *options]
        with subprocess.Popen(command, pass_fds=(tell, listener.fileno())) as process:
            os.close(tell)
            assert os.read(told, 100) == b"ready\n"
            try:
                yield process.pid, listener.getsockname()[1]
            finally:
                process.terminate()


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.set_inheritable(True)
    return listener


def _await(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def bare(report: Report, direct: Target, through: Target, pid: int) -> None:
    """The stand-in engine, directly and through the gateway."""
    for connections in (1, CONNECTIONS):
        results = {}
        for name, target in (("direct", direct), ("gateway", through)):
            await unary(target, requests=UNARY_REQUESTS // 10, connections=connections)  # warm
            used, began = cpu_s(pid), time.perf_counter()
            latencies = await unary(target, requests=UNARY_REQUESTS, connections=connections)
            took_s = time.perf_counter() - began
            results[name] = median(latencies)
            cpu_us = (cpu_s(pid) - used) / UNARY_REQUESTS * 1e6 if name == "gateway" else float("nan")
            report.row(
                f"unary, {connections} connections, {name}",
                f"{median(latencies) * 1e3:.2f}",
                f"{quantile(latencies, 0.99) * 1e3:.2f}",
                f"{UNARY_REQUESTS / took_s:.0f}/s",
                f"{cpu_us:.0f} us/request" if name == "gateway" else "",
            )
            if name == "gateway" and connections == CONNECTIONS:
                report.goal("CPU per request", f"{cpu_us:.0f} us", None)
        added_ms = (results["gateway"] - results["direct"]) * 1e3
        report.goal(f"added to a unary answer, {connections} connections, p50", f"{added_ms:.2f} ms", None)
    firsts = {}
    for name, target in (("direct", direct), ("gateway", through)):
        used = cpu_s(pid)
        results_ = await asyncio.gather(*(stream(target, chunks=CHUNKS, delay_ms=DELAY_MS) for _ in range(STREAMS)))
        cpu_us = (cpu_s(pid) - used) / (STREAMS * CHUNKS) * 1e6
        firsts[name] = [result.first_chunk_s for result in results_]
        report.row(
            f"{STREAMS} streams, {CHUNKS} chunks every {DELAY_MS} ms, {name}: first chunk",
            f"{median(firsts[name]) * 1e3:.2f}",
            f"{quantile(firsts[name], 0.99) * 1e3:.2f}",
            f"{sum(result.chunks for result in results_)} chunks",
            f"{cpu_us:.0f} us/chunk" if name == "gateway" else "",
        )
        if name == "gateway":
            report.goal("CPU per streamed chunk, its share of the request in it", f"{cpu_us:.0f} us", None)
    added = median(firsts["gateway"]) - median(firsts["direct"])
    report.goal(f"added to the first chunk, {STREAMS} streams at once, p50", f"{added * 1e3:.2f} ms", None)


async def real(report: Report, direct: Target, through: Target) -> None:
    """The real engine: one stream at a time, direct and through the gateway in turns."""
    firsts: dict[str, list[float]] = {"direct": [], "gateway": []}
    for _ in range(REAL_STREAMS):
        for name, target in (("direct", direct), ("gateway", through)):
            firsts[name].append((await stream(target, chunks=8)).first_chunk_s)
    for name, values in firsts.items():
        report.row(
            f"SmolLM2, one stream, {name}: first chunk",
            f"{median(values) * 1e3:.1f}",
            f"{quantile(values, 0.99) * 1e3:.1f}",
            "",
            "",
        )
    added = median(firsts["gateway"]) - median(firsts["direct"])
    share = added / median(firsts["direct"])
    report.goal("added to the real engine's first chunk, p50", f"{added * 1e3:.1f} ms ({share:+.1%})", None)


def with_standin(report: Report, scratch: Path) -> None:
    """Gateway and stand-in alone, one process each."""
    layout, engine = Layout(scratch / "bare"), scratch / "e.sock"
    layout.data_dir.mkdir()
    with standin(engine), gateway(layout, engine) as (pid, port):
        direct = Target(model=MODEL, key=NONCE, uds=str(engine))
        uvloop.run(bare(report, direct, Target(model=MODEL, key=KEY, port=port), pid))


def with_engine(report: Report, scratch: Path) -> None:
    """A whole server with the demo model."""
    with running_server(scratch / "real") as server:
        endpoint = server.deployed(os.environ["HEADRACE_TEST_MODEL"])
        snapshot = msgspec.json.decode(Layout(server.data_dir).snapshot.read_bytes(), type=RoutingSnapshot)
        deployed = snapshot.endpoints[0].deployed[0]
        [replica] = deployed.replicas
        direct = Target(model=deployed.served_name, key=replica.nonce, uds=replica.address.removeprefix("unix:"))
        through = Target(model=endpoint, key=server.key, port=httpx.URL(server.url).port)
        uvloop.run(real(report, direct, through))


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report("gateway", ("what", "p50 ms", "p99 ms", "throughput", "gateway CPU"))
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as scratch:
        with_standin(report, Path(scratch))
        with_engine(report, Path(scratch))
    report.finish()


if __name__ == "__main__":
    main()
