"""A replica as the autoscaler's simulation has it: as fast as it was measured, and no wiser."""

from __future__ import annotations

import heapq
import json
import re
from bisect import bisect_left
from collections import deque
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).resolve().parent / "results"

BATCH = 32
"""Sequences that one replica computes at a time; more wait in its line."""


class Speed(NamedTuple):
    """What one engine was measured to do on two cores with SmolLM2-135M (``bench/results/engine-*.json``).

    Attributes:
        prompt_tokens_per_s: Reading a prompt of 1,500 tokens alone.
        decode: Tokens per second of all sequences together, by how many there are.
        start_s: From its start until it is ready.
    """

    name: str
    prompt_tokens_per_s: float
    decode: tuple[tuple[int, float], ...]
    start_s: float

    def tokens_per_s(self, sequences: int) -> float:
        """Of all together, between two measured numbers on a straight line."""
        place = bisect_left(self.decode, (sequences, 0.0))
        if place == 0 or place == len(self.decode):
            return self.decode[min(place, len(self.decode) - 1)][1]
        (fewer, slow), (more, fast) = self.decode[place - 1], self.decode[place]
        return slow + (fast - slow) * (sequences - fewer) / (more - fewer)

    def work_s(self, prompt_tokens: int, output_tokens: int) -> float:
        """Seconds of one replica that a request takes, at a good batch of eight."""
        return prompt_tokens / self.prompt_tokens_per_s + output_tokens / self.tokens_per_s(8)


def measured(name: str) -> Speed:
    """One engine's speed, as the newest quiet run of ``bench-engine`` has it."""
    rows = {part: json.loads((RESULTS / f"engine-{part}.json").read_text())["rows"] for part in ("short", "long")}
    who = f"{name}, direct"
    long = {row[0]: row for row in rows["long"] if row[1] == who}
    decode = sorted(
        (int(row[0].split(", ")[1].split()[0]), float(row[2]))
        for row in rows["short"]
        if row[1] == who and row[0].startswith("30 tokens, ")
    )
    ready = re.search(r"ready ([\d.]+) s", " ".join(long["what it costs"]))
    assert ready is not None
    return Speed(
        name=name,
        prompt_tokens_per_s=1500.0 / (float(long["1500 tokens, 1 at once"][3]) / 1000.0),
        decode=tuple(decode),
        start_s=float(ready[1]),
    )


class Request:
    """One of the trace.

    Attributes:
        first_token_s: From its arrival; None while there is none.
    """

    __slots__ = ("at", "first_token_s", "output_tokens", "prompt_tokens")

    def __init__(self, at: float, prompt_tokens: int, output_tokens: int) -> None:
        self.at = at
        self.prompt_tokens, self.output_tokens = prompt_tokens, output_tokens
        self.first_token_s: float | None = None


class Replica:
    """Reads one prompt at a time, first come first served, and writes for all that were read, in one batch.

    Where there is both to do, each has half of the time. All sequences of a batch get a token at the same times, so
    that one number, how many each has got so far (`_pace`), tells when which one ends.
    """

    def __init__(self, speed: Speed, ready_at: float) -> None:
        self.speed = speed
        self.ready_at = ready_at
        self.line: deque[Request] = deque()
        self.work_tokens = 0
        self.busy_s = 0.0
        self.retired = False
        self._unread = 0.0
        self._pace = 0.0
        self._ends: list[tuple[float, int, Request]] = []

    @property
    def running(self) -> int:
        """Sequences in its batch."""
        return len(self._ends)

    @property
    def outstanding(self) -> int:
        """Requests that it has."""
        return len(self._ends) + len(self.line)

    def take(self, request: Request) -> None:
        """One more for its line."""
        self.work_tokens += request.prompt_tokens + request.output_tokens
        self.line.append(request)
        if len(self.line) == 1:
            self._unread = float(request.prompt_tokens)

    def step(self, now: float, step_s: float) -> None:
        """Compute for so long."""
        reads = bool(self.line) and len(self._ends) < BATCH
        share = 0.5 if reads and self._ends else 1.0
        if reads or self._ends:
            self.busy_s += step_s
        if self._ends:
            self._write(step_s * share)
        if reads:
            self._read(now + step_s, step_s * share)

    def _write(self, for_s: float) -> None:
        count = len(self._ends)
        self._pace += self.speed.tokens_per_s(count) / count * for_s
        while self._ends and self._ends[0][0] <= self._pace:
            _, _, request = heapq.heappop(self._ends)
            self.work_tokens -= request.prompt_tokens + request.output_tokens

    def _read(self, now: float, for_s: float) -> None:
        tokens = self.speed.prompt_tokens_per_s * for_s
        while self.line and len(self._ends) < BATCH:
            if self._unread > tokens:
                self._unread -= tokens
                return
            tokens -= self._unread
            request = self.line.popleft()
            request.first_token_s = now - request.at
            heapq.heappush(self._ends, (self._pace + request.output_tokens, id(request), request))
            self._unread = float(self.line[0].prompt_tokens) if self.line else 0.0
