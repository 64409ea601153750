"""The load of ``bench/gateway.py`` and what it costs a contender: wrk, the streaming client, the kernel's accounts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from gateway_contenders import KEY, Running
from gateway_nginx import PATH
from gateway_streams import chat_body
from process_memory import family_memory

_STREAMS = Path(__file__).with_name("gateway_streams.py")
LATE_S = 60.0
"""For a load generator to end, beyond its time."""

_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"failed":%d}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status))
end
"""


class Unary(NamedTuple):
    """What wrk saw, and what the requests cost.

    Attributes:
        cpu_us: Processor time of the contender for a request.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float


class Streamed(NamedTuple):
    """What the streaming client saw, and what the chunks cost.

    Attributes:
        first_ms: p50 and p99 from the request to the first chunk.
        gap_ms: p50 and p99 between two chunks.
        streams: How many came to their end.
        cpu_us: Processor time of the contender for a chunk, its share of the request in it.
    """

    first_ms: tuple[float, float]
    gap_ms: tuple[float, float]
    streams: int
    failed: int
    cpu_us: float


class Held(NamedTuple):
    """Streams that stand still."""

    held: int
    took_s: float
    pss_bytes: int


@dataclass(frozen=True)
class Load:
    """The load generators, on their core.

    Attributes:
        core: Theirs.
        folder: For wrk's script.
    """

    core: int
    folder: Path

    def unary(self, running: Running, *, connections: int, seconds: float) -> Unary:
        """As many requests as go through these connections in this time."""
        script = self.folder / "request.lua"
        body = chat_body(max_tokens=8).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
        script.write_text("\n".join(['wrk.method = "POST"', f"wrk.body = [==[{body}]==]", *lines, _DONE]))
        # wrk takes whole seconds only
        options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script)]
        used = cpu_s(running.pid)
        said = self._run(["wrk", *options, f"http://127.0.0.1:{running.port}{PATH}"], seconds)
        cpu_us = _each(cpu_s(running.pid) - used, said["requests"])
        per_s = said["requests"] / said["seconds"]
        return Unary(per_s, said["p50"], said["p99"], said["failed"], cpu_us)

    def streams(self, running: Running, *, streams: int, chunks: int, delay_ms: int, seconds: float) -> Streamed:
        """So many streams at a time, each followed by the next."""
        load = {"streams": streams, "chunks": chunks, "delay-ms": delay_ms, "seconds": seconds}
        used = cpu_s(running.pid)
        said = self._run(_client(running, load), seconds)
        cpu_us = _each(cpu_s(running.pid) - used, said["chunks"])
        first, gap = ((said[name]["p50"], said[name]["p99"]) for name in ("firsts", "gaps"))
        return Streamed(first, gap, said["streams"], said["failed"], cpu_us)

    @contextlib.contextmanager
    def held(self, running: Sequence[Running], streams: int) -> Iterator[Held]:
        """Streams that stand still after their first chunk, until the block's end, on gateways that share a port."""
        with subprocess.Popen(
            self._pinned(_client(running[0], {"hold": streams})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout
            said = json.loads(client.stdout.readline())
            try:
                yield Held(said["held"], said["took_s"], sum(pss_bytes(each.pid) for each in running))
            finally:
                client.communicate(timeout=LATE_S)

    def _pinned(self, command: list[str]) -> list[str]:
        return ["taskset", "-c", str(self.core), *command]

    def _run(self, command: list[str], seconds: float) -> dict[str, Any]:
        """Run a load generator; the last line that it prints is what it found."""
        done = subprocess.run(
            self._pinned(command), capture_output=True, text=True, timeout=seconds + LATE_S, check=False
        )
        if done.returncode:
            sys.exit(f"error: {command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found


def _each(used_s: float, count: int) -> float:
    return used_s / count * 1e6 if count else float("nan")


def _client(running: Running, load: dict[str, Any]) -> list[str]:
    options = [word for name, value in load.items() for word in (f"--{name}", str(value))]
    return [sys.executable, str(_STREAMS), "--port", str(running.port), "--key", KEY, *options]


def _family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Processor time that a process and its descendants have used."""
    total = 0
    for process in _family(pid):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def await_idle(pid: int) -> None:
    """Wait until a process has done what it was left with, so that it does not disturb who comes next."""
    deadline = time.monotonic() + LATE_S
    while time.monotonic() < deadline:
        used = cpu_s(pid)
        time.sleep(0.2)
        if cpu_s(pid) - used < 0.02:
            return


def pss_bytes(pid: int) -> int:
    """Memory of a process and its descendants; a page that others share counts by its share."""
    return family_memory(psutil.Process(pid)).total
