"""Run by the Python of the OpenVINO engine: how prompts are read beside others, without shell, gateway or client.

    PYTHONPATH=src $PYTHON bench/offline_reading.py FOLDER disturbed 1500:8 30:8 ...

``disturbed``: four streams of 400 tokens, quiet and while a prompt of 1,500 tokens comes each second; the time of the
steps that gave them a token. ``P:N``: prompts of P tokens and answers of 64, N at once, twice as many in all, and as
soon as one is done the next one comes. Another checkout's engine is measured by its own ``src``; compare what was
measured in turns only. Beside the clock's times stand those of the processor, by the two threads: on a busy machine the
clock tells of the others.
"""

import json
import random
import sys
import time
from typing import Any, NamedTuple

from headrace_engines.openvino.loading import load
from headrace_engines.openvino.messages import Load
from headrace_engines.serving.generator import GenerationRequest, Sampling

LONG, STREAMS, STREAM_TOKENS, ARRIVALS, EVERY_S, ANSWER_TOKENS, THREADS = 1500, 4, 400, 8, 1.0, 64, 2
dice = random.Random()


def request(prompt_tokens: int, max_tokens: int) -> GenerationRequest:
    """Of a prompt that nothing before began like."""
    prompt = [dice.randrange(100, 40_000) for _ in range(prompt_tokens)]
    return GenerationRequest(
        prompt_ids=prompt, max_tokens=max_tokens, ignore_eos=True, sampling=Sampling(temperature=0)
    )


class Engine:
    """The sequences of a pipeline, as a server of 128 places has it."""

    def __init__(self, folder: str) -> None:
        order = Load(
            folder=folder, dtype="auto", threads=THREADS, max_model_len=8192, kv_cache_bytes=3 * 2**29, max_running=128
        )
        self.running = load(order)[0]
        self._numbers = 0

    def add(self, prompt_tokens: int, max_tokens: int) -> int:
        """The sequence's number."""
        self._numbers += 1
        self.running.add(self._numbers, request(prompt_tokens, max_tokens))
        return self._numbers

    def step(self) -> list[tuple[int, Any]]:
        """What one step gave."""
        step = self.running.step()
        assert not step.failures, step.failures
        return step.events

    def run_out(self) -> None:
        """Until nobody is left."""
        while self.running:
            self.step()


class Clocks(NamedTuple):
    """Seconds by the clock, and of the processor by its threads."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Clocks":
        """Both."""
        return cls(time.perf_counter(), time.process_time() / THREADS)

    def since(self, earlier: "Clocks") -> "Clocks":
        """The difference."""
        return Clocks(self.wall_s - earlier.wall_s, self.cpu_s - earlier.cpu_s)


def streams(engine: Engine, arrivals: int) -> tuple[list[Clocks], list[Clocks]]:
    """Between the tokens of four streams, and to the first token of the prompts that came meanwhile."""
    open_streams = {engine.add(30, STREAM_TOKENS) for _ in range(STREAMS)}
    last: dict[int, Clocks] = {}
    came: dict[int, Clocks] = {}
    gaps, firsts = [], []
    began = Clocks.now()
    while open_streams:
        if len(came) < arrivals and Clocks.now().since(began).wall_s > EVERY_S * (len(came) + 1):
            came[engine.add(LONG, 1)] = Clocks.now()
        events = engine.step()
        now = Clocks.now()
        for number, event in events:
            if number in came:
                firsts.append(now.since(came[number]))
                continue
            if number in last:
                gaps.append(now.since(last[number]))
            last[number] = now
            if event.finish_reason is not None:
                open_streams.discard(number)
    engine.run_out()
    return gaps, firsts


def together(engine: Engine, prompt_tokens: int, at_once: int) -> dict[str, Any]:
    """So many at once, twice as many in all."""
    came: dict[int, Clocks] = {}
    last: dict[int, Clocks] = {}
    firsts, gaps, ended, total = [], [], 0, 2 * at_once
    began = Clocks.now()
    while ended < total:
        while len(came) - ended < at_once and len(came) < total:
            came[engine.add(prompt_tokens, ANSWER_TOKENS)] = Clocks.now()
        events = engine.step()
        now = Clocks.now()
        for number, event in events:
            if number in last:
                gaps.append(now.since(last[number]))
            else:
                firsts.append(now.since(came[number]))
            last[number] = now
            ended += event.finish_reason is not None
    told: dict[str, Any] = {}
    for clock in Clocks._fields:
        mean_s = sum(getattr(first, clock) for first in firsts) / len(firsts)
        told[f"{clock}: tokens/s"] = round(total * ANSWER_TOKENS / getattr(Clocks.now().since(began), clock), 1)
        told[f"{clock}: first mean, p50, p99 ms"] = [round(mean_s * 1e3), *quantiles(firsts, clock)]
        told[f"{clock}: between p50, p99 ms"] = quantiles(gaps, clock)
    return told


def disturbed(engine: Engine) -> dict[str, Any]:
    """What prompts that come do to four streams."""
    (quiet, _), (loud, firsts) = streams(engine, 0), streams(engine, ARRIVALS)
    told: dict[str, Any] = {}
    for clock in Clocks._fields:
        told[f"{clock}: quiet p50, p99 ms"] = quantiles(quiet, clock)
        told[f"{clock}: disturbed p50, p99 ms"] = quantiles(loud, clock)
        told[f"{clock}: p99 ratio"] = round(quantiles(loud, clock)[1] / quantiles(quiet, clock)[1], 2)
        told[f"{clock}: the prompts' first p50, p99 ms"] = quantiles(firsts, clock)
    return told


def quantiles(values: list[Clocks], clock: str) -> list[float]:
    """Median and 99th percentile, in ms."""
    ordered = sorted(getattr(value, clock) * 1e3 for value in values)
    return [round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) for share in (0.5, 0.99)]


def measure() -> None:
    """What was asked for."""
    engine = Engine(sys.argv[1])
    together(engine, 200, 4)  # what is made on first use is there, and what is learned is learned
    for name in sys.argv[2:]:
        told = disturbed(engine) if name == "disturbed" else together(engine, *map(int, name.split(":")))
        print(json.dumps({"load": name} | told), flush=True)


measure()
