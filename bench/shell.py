"""What the engines' shell costs a token: its process' own CPU around a generator that computes nothing.

CPU is read from the kernel, so neither other work beside nor the load generator count; read the cost per token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import uvloop

from report import Report

PROGRAM = Path(__file__).with_name("fast_engine.py")
MODEL = "fast"
STREAMS, TOKENS, ROUNDS = 128, 64, 3
GOAL_TOKENS_PER_S = 800
"""What two cores compute of SmolLM2: of these, the shell's share is told."""

CASES: dict[str, tuple[str, dict[str, object]]] = {
    "chat, streamed": ("/v1/chat/completions", {"stream": True}),
    "completions, streamed": ("/v1/completions", {"stream": True}),
    "completions, whole": ("/v1/completions", {}),
    "chat, streamed, logprobs": ("/v1/chat/completions", {"stream": True, "logprobs": True}),
    "completions, streamed, stop strings": ("/v1/completions", {"stream": True, "stop": ["\n\nUser:", "###"]}),
    "completions, streamed, n = 4": ("/v1/completions", {"stream": True, "n": 4}),
}


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[tuple[int, str]]:
    """The shell in a process of its own; yields its pid and socket."""
    uds = folder / "e.sock"
    command = [sys.executable, str(PROGRAM), "--served-model-name", MODEL, "--uds", str(uds)]
    command += ["--model", os.environ["HEADRACE_TEST_MODEL"]]
    with subprocess.Popen(command) as process:
        try:
            _await_ready(uds)
            yield process.pid, str(uds)
        finally:
            process.terminate()


def _await_ready(uds: Path) -> None:
    deadline_s = time.monotonic() + 30
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(uds)), base_url="http://engine") as client:
        while time.monotonic() < deadline_s:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health").status_code == 200:
                    return
            time.sleep(0.05)
    raise TimeoutError("The shell did not become ready.")


async def ask(uds: str, path: str, fields: dict[str, object]) -> int:
    """One request on a connection of its own; how many bytes came."""
    said = {"model": MODEL, "max_tokens": TOKENS, "ignore_eos": True} | fields
    said |= {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in path else {"prompt": "Hi"}
    body = json.dumps(said).encode()
    reader, writer = await asyncio.open_unix_connection(uds)
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read(-1)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return len(answer)


async def measure(report: Report, pid: int, uds: str) -> None:
    """Every case: CPU per token, and how many tokens a second that is."""
    for name, (path, fields) in CASES.items():
        streams = STREAMS // int(str(fields.get("n", 1)))
        await asyncio.gather(*(ask(uds, path, fields) for _ in range(streams)))  # warm
        used, began = cpu_s(pid), time.perf_counter()
        for _ in range(ROUNDS):
            await asyncio.gather(*(ask(uds, path, fields) for _ in range(streams)))
        cpu_us = (cpu_s(pid) - used) / (ROUNDS * STREAMS * TOKENS) * 1e6
        tokens_per_s = ROUNDS * STREAMS * TOKENS / (time.perf_counter() - began)
        report.row(name, f"{cpu_us:.1f}", f"{tokens_per_s:.0f}")
        if name == "chat, streamed":
            share = cpu_us * GOAL_TOKENS_PER_S / 1e6 / 2
            report.goal(
                f"the shell's share of two cores at {GOAL_TOKENS_PER_S} streamed tokens/s: at most 15 %",
                f"{share:.1%} ({cpu_us:.0f} us a token)",
                share <= 0.15,
            )


def main() -> None:
    """Measure, print, keep."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report("shell", ["case", f"CPU us/token ({STREAMS} x {TOKENS})", "tokens/s"])
    with tempfile.TemporaryDirectory() as folder, engine(Path(folder)) as (pid, uds):
        uvloop.run(measure(report, pid, uds))
    report.finish()


if __name__ == "__main__":
    main()
