"""What one replica has to do: read from the kernel, from NVML and from its engine's own metrics."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from headrace.compute.backend import EngineProcess
from headrace.hardware import duty_percent
from headrace.node.http import HttpClient
from headrace.resources.assignments import ReplicaLoad

TIMEOUT_S = 1.0
"""For an engine to tell its metrics; one that is late has none this time."""

WAITING = "num_requests_waiting"
KV_CACHE = "(?:kv|gpu)_cache_usage_perc"
"""vLLM's names, before and since 0.10; our own engines have the newer one. A share from 0 to 1 in spite of its name."""


class LoadMeter:
    """Measures one replica again and again.

    Args:
        socket: Of its engine.
        nonce: What the engine wants to be shown.
    """

    def __init__(self, socket: Path, nonce: str) -> None:
        self._engine = HttpClient(f"unix:{socket}", nonce)
        self._before: tuple[float, float] | None = None

    async def measure(self, process: EngineProcess, cores: int) -> ReplicaLoad | None:
        """What it has to do since this was asked last; None the first time.

        Args:
            process: Its engine.
            cores: How many it may use.
        """
        (used_s, accelerator), text = await asyncio.gather(asyncio.to_thread(_look, process), self._text())
        now, before = time.monotonic(), self._before
        self._before = now, used_s
        if before is None or now <= before[0]:
            return None
        over_s = now - before[0]
        kv_cache = metric(text, KV_CACHE)
        return ReplicaLoad(
            at=time.time(),
            over_s=over_s,
            # A child that ended has taken its time with it.
            cpu_percent=min(100.0, max(0.0, used_s - before[1]) / over_s / max(cores, 1) * 100.0),
            accelerator_percent=accelerator,
            kv_cache_percent=None if kv_cache is None else kv_cache * 100.0,
            waiting=metric(text, WAITING),
        )

    async def close(self) -> None:
        """Hang up."""
        await self._engine.close()

    async def _text(self) -> bytes:
        try:
            answer = await self._engine.request("GET", "/metrics", timeout_s=TIMEOUT_S)
        except ConnectionError:
            return b""
        return answer.body if answer.ok else b""


def _look(process: EngineProcess) -> tuple[float, float | None]:
    return process.cpu_s(), duty_percent(process.pids())


def metric(text: bytes, name: str) -> float | None:
    r"""A gauge of an engine, summed over its series; None where there is none.

    Args:
        text: Prometheus's text format.
        name: A regular expression for the name behind ``vllm:``.

    >>> metric(b'vllm:num_requests_waiting{model_name="m"} 3.0\n', "num_requests_waiting")
    3.0
    """
    found = re.findall(rb"^vllm:%s(?:\{[^}\n]*\})? ([0-9.eE+-]+)$" % name.encode("ascii"), text, re.MULTILINE)
    return sum(map(float, found)) if found else None
