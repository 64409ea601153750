"""Run by the Python of the OpenVINO engine: how much of a prompt a step should read, alone and beside others.

    PYTHONPATH=src $PYTHON bench/offline_reading.py FOLDER learned genai:64 256,32 512,64

In turns: ``learned`` (as served), pairs of what a step reads alone and beside others, and ``genai:N`` (prompts given
whole, and split by GenAI's one number: N and a token for each sequence that could run). Told are the first token of a
prompt of 1,500 tokens that comes alone, and the steps of four streams, quiet and while such prompts come every second.
Times of the clock, and of the processor by two threads.
"""

import json
import random
import sys
import time
from typing import Any

from headrace_engines.openvino import loading
from headrace_engines.openvino.messages import Load
from headrace_engines.openvino.running import Running
from headrace_engines.serving.generator import GenerationRequest, Sampling

LONG, STREAMS, STREAM_TOKENS, ARRIVALS, EVERY_S, THREADS = 1500, 4, 300, 6, 1.0, 2
dice = random.Random(5)


def request(prompt_tokens: int, max_tokens: int) -> GenerationRequest:
    prompt = [dice.randrange(100, 40_000) for _ in range(prompt_tokens)]
    return GenerationRequest(
        prompt_ids=prompt, max_tokens=max_tokens, ignore_eos=True, sampling=Sampling(temperature=0)
    )


def start(setting: str) -> Running:
    whole = setting.startswith("genai:")
    if whole:
        loading.PROMPT_TOKENS_PER_STEP = int(setting.removeprefix("genai:"))
    order = Load(
        folder=sys.argv[1],
        dtype="auto",
        threads=THREADS,
        max_model_len=4096,
        kv_cache_bytes=0,
        max_running=128,
        prefix_caching=not whole,
    )
    engine = loading.load(order)[0]
    if not whole and setting != "learned":
        alone, beside = map(int, setting.split(","))
        engine._pace.piece_tokens = lambda _, decoding: beside if decoding else alone
    return engine


def timed_step(engine: Running) -> tuple[float, float, Any]:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    step = engine.step()
    return time.perf_counter() - began_s, (time.process_time() - began_cpu_s) / THREADS, step


def first_token(engine: Running, number: int) -> tuple[float, float]:
    engine.add(number, request(LONG, 2))
    wall_s = cpu_s = 0.0
    while True:
        step_s, step_cpu_s, step = timed_step(engine)
        wall_s, cpu_s = wall_s + step_s, cpu_s + step_cpu_s
        if step.events:
            while engine:
                engine.step()
            return wall_s, cpu_s


def streams(engine: Running, first: int, arrivals: int) -> tuple[list[float], list[float], int]:
    for number in range(first, first + STREAMS):
        engine.add(number, request(30, STREAM_TOKENS))
    walls, cpus, came, answered = [], [], 0, 0
    while not engine.step().events:
        pass
    began_s = time.perf_counter()
    while True:
        if came < arrivals and time.perf_counter() - began_s > EVERY_S * (came + 1):
            engine.add(first + 100 + came, request(LONG, 1))
            came += 1
        wall_s, cpu_s, step = timed_step(engine)
        answered += sum(number >= first + 100 for number, _ in step.events)
        if any(event.finish_reason for number, event in step.events if number < first + 100):
            break
        walls.append(wall_s)
        cpus.append(cpu_s)
    for number in range(first, first + 100 + came):
        engine.cancel(number)
    while engine:
        engine.step()
    return walls, cpus, answered


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1e3


for setting in sys.argv[2:]:
    engine = start(setting)
    first_token(engine, 1)
    alone = [first_token(engine, number) for number in (2, 3, 4)]
    quiet = streams(engine, 1000, 0)
    loud = streams(engine, 2000, ARRIVALS)
    told = {"setting": setting, "alone s": round(min(wall for wall, _ in alone), 2)}
    told["alone cpu s"] = round(min(cpu for _, cpu in alone), 2)
    for name, which in (("wall", 0), ("cpu", 1)):
        for share in (0.5, 0.99):
            told[f"{name} p{share * 100:.0f} ms"] = [round(quantile(run[which], share), 1) for run in (quiet, loud)]
        told[f"{name} p99 ratio"] = round(quantile(loud[which], 0.99) / quantile(quiet[which], 0.99), 2)
    told["prompts answered meanwhile"] = loud[2]
    told["steps"] = [len(quiet[0]), len(loud[0])]
    print(json.dumps(told), flush=True)
    del engine
