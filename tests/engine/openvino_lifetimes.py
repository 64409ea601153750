"""Run by the OpenVINO engine's Python: sequences come, go and are cancelled; what is left behind?

Usage: ``python openvino_lifetimes.py FOLDER SEED``; prints JSON. A thousand go through the shell's end, whose pipeline
is another process; and a thousand through a pipeline in this one, which is asked what it holds.
"""

import asyncio
import gc
import json
import os
import random
import signal
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import msgspec

from headrace_engines.openvino.generator import PipelineGenerator
from headrace_engines.openvino.loading import load
from headrace_engines.openvino.messages import Load
from headrace_engines.openvino.starting import start
from headrace_engines.serving.fatal import FatalError
from headrace_engines.serving.generator import (
    Generation,
    GenerationFailed,
    GenerationRequest,
    Grammar,
    QueueFull,
    Sampling,
)

SEQUENCES = 1000
CONTEXT = 128
BLOCKS = 6
BLOCK_BYTES = 1_664
"""Of 32 tokens in a layer of the tiny llama (two heads of 8) with 8-bit keys and values and their scales: keys take
(32 + 8) x 8 bytes a head, values 32 x (8 + 8). `BLOCKS`: one context, and half of a second one."""

GRAMMARS = [Grammar(kind="regex", text="[ab]{2,9}"), Grammar(kind="regex", text="(")]


def random_request(dice: random.Random) -> GenerationRequest:
    """Short or long, greedy or sampled, now and then with a grammar; never more than the context."""
    prompt = [dice.randrange(250) for _ in range(dice.choice([1, 5, 31, 32, 33, 100]))]
    grammar = dice.choice(GRAMMARS) if dice.random() < 0.1 else None
    return GenerationRequest(
        prompt_ids=prompt,
        max_tokens=dice.choice([1, 3, CONTEXT - len(prompt)]) if dice.random() < 0.3 else dice.randint(1, 6),
        ignore_eos=grammar is None,
        sampling=Sampling(temperature=dice.choice([0.0, 1.0]), top_k=dice.choice([0, 5])),
        grammar=grammar,
        top_logprobs=dice.choice([None, None, 0]),
    )


async def follow(request: GenerationRequest, generation: Any, patience: int | None, ends: Counter[str]) -> None:
    """Read until the end, which has to be the right one, or give up after so many tokens."""
    read = 0
    try:
        if patience == 0:
            generation.cancel()
        async for event in generation:
            read += len(event.token_ids)
            assert len(event.logprobs) == (0 if request.top_logprobs is None else len(event.token_ids))
            if event.finish_reason is not None:
                assert request.grammar is not None or read == request.max_tokens
                ends[event.finish_reason] += 1
                return
            if patience is not None and read >= patience:
                generation.cancel()
        ends["cancelled"] += 1
    except GenerationFailed as error:
        ends[error.code] += 1


async def crowd(generator: PipelineGenerator, dice: random.Random) -> Counter[str]:
    """Everybody, a few at a time; returns how they ended."""
    ends: Counter[str] = Counter()
    following: set[asyncio.Task[None]] = set()
    for _ in range(SEQUENCES):
        request = random_request(dice)
        try:
            generation = generator.submit(request)
        except QueueFull:
            ends["refused"] += 1
            if following:
                await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
            following = {task for task in following if not task.done()}
            continue
        patience = dice.choice([None, None, None, 0, 1, 4])
        following.add(asyncio.create_task(follow(request, generation, patience, ends)))
        if dice.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*following)
    return ends


NOTHING = {"load": [0, 0, 0.0], "open": 0, "tasks": 0, "sequences": 0}


def left_behind(generator: PipelineGenerator) -> dict[str, Any]:
    """What is still there, looked for among all objects of the process."""
    gc.collect()
    types = Counter(type(thing) for thing in gc.get_objects())
    return {
        "load": list(generator.load()),
        "open": len(generator._open),
        "tasks": len(asyncio.all_tasks()) - 1,
        "sequences": types[Generation],
    }


async def settled(generator: PipelineGenerator) -> dict[str, Any]:
    """What stays: the two threads need a moment to let go of what was cancelled last."""
    deadline_s = time.monotonic() + 30
    while (left := left_behind(generator)) != NOTHING and time.monotonic() < deadline_s:  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0.01)
    return left


async def not_taken(generator: PipelineGenerator) -> dict[str, Any]:
    """What becomes of requests that GenAI does not take or that cannot even be told, and of one beside them."""
    bystander = generator.submit(GenerationRequest(prompt_ids=[1], max_tokens=20, ignore_eos=True))
    codes = []
    for sampling in (Sampling(top_p=0.0), Sampling(top_k=10**20)):
        try:
            async for _ in generator.submit(GenerationRequest(prompt_ids=[1], max_tokens=1, sampling=sampling)):
                pass
        except (GenerationFailed, OverflowError) as error:
            codes.append(error.code if isinstance(error, GenerationFailed) else type(error).__name__)
    read = sum([len(event.token_ids) async for event in bystander])
    del bystander
    return {"codes": codes, "bystander": read, "left": await settled(generator)}


async def last_words(generator: PipelineGenerator, deaths: list[FatalError]) -> dict[str, Any]:
    """What everybody is told when a step throws: a grammar that nobody looked at does that."""
    os.kill(generator._process.pid, signal.SIGSTOP)  # both come with its next step
    bystander = generator.submit(GenerationRequest(prompt_ids=[1], max_tokens=100, ignore_eos=True))
    generator._grammars.check = lambda grammar: None
    culprit = generator.submit(GenerationRequest(prompt_ids=[1], max_tokens=1, grammar=GRAMMARS[1]))
    while generator._checking:  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0.01)
    os.kill(generator._process.pid, signal.SIGCONT)
    codes = []
    for generation in (bystander, culprit):
        try:
            async for _ in generation:
                pass
        except GenerationFailed as error:
            codes.append(error.code)
    try:
        generator.submit(GenerationRequest(prompt_ids=[1], max_tokens=1))
    except GenerationFailed as error:
        codes.append(error.code)
    return {"codes": codes, "deaths": [death.code for death in deaths], "load": list(generator.load())}


async def live(folder: Path, seed: int) -> dict[str, Any]:
    """All of it."""
    order = Load(
        folder=str(folder),
        dtype="auto",
        threads=1,
        max_model_len=CONTEXT,
        kv_cache_bytes=BLOCKS * BLOCK_BYTES * layers_of(folder),
        max_running=8,
    )
    deaths: list[FatalError] = []
    loop = asyncio.get_running_loop()
    served = await asyncio.to_thread(start, order, max_waiting=8, loop=loop, on_death=deaths.append)
    generator = served.generator
    assert isinstance(generator, PipelineGenerator)
    ends = await crowd(generator, random.Random(seed))
    answer: dict[str, Any] = {"ends": ends, "left": await settled(generator)}
    answer["not taken"] = await not_taken(generator)
    answer["last words"] = await last_words(generator, deaths)
    answer["held up"] = held_up(order)
    return answer | {"pipeline": in_the_pipeline(order, random.Random(seed))}


def held_up(order: Load) -> dict[str, list[int]]:
    """Two of which only one has room to its end, and the older is cancelled after so many steps, one more each time.

    Told is after how many steps the younger did not get all of its tokens, or failed.
    """
    running, _ = load(order)
    told: dict[str, list[int]] = {"short": [], "failed": []}
    for steps in range(30, 56):
        for number in (2 * steps, 2 * steps + 1):
            prompt = [(number + place) % 250 for place in range(60)]
            running.add(number, GenerationRequest(prompt_ids=prompt, max_tokens=60, ignore_eos=True))
        got = made = 0
        while running:
            if made == steps:
                running.cancel(2 * steps)
            made += 1
            step = running.step()
            got += sum(len(event.token_ids) for number, event in step.events if number == 2 * steps + 1)
            if step.failures:
                told["failed"].append(steps)
        if got != 60:
            told["short"].append(steps)
    return told


def in_the_pipeline(order: Load, dice: random.Random) -> dict[str, Any]:
    """As many once more without a shell: they wait for room, and some go before they began, or in the midst.

    Told is what the pipeline itself says: the most blocks that were ever used, in percent, and what is used by how many
    in the end; and what its cache takes, and was reckoned to take.
    """
    running, _ = load(order)
    metrics = running._pipeline.get_metrics
    waiting: deque[tuple[int, GenerationRequest]] = deque()
    most, ended, come = 0.0, 0, 0
    while come < SEQUENCES or waiting or running:
        while come < SEQUENCES and len(waiting) < 8:
            request = msgspec.structs.replace(random_request(dice), grammar=None, ignore_eos=True)
            waiting.append((come, request))
            come += 1
        while waiting and running.has_room(waiting[0][1]):
            number, request = waiting.popleft()
            running.add(number, request)
            if dice.random() < 0.1:
                running.cancel(number)
        if dice.random() < 0.2:
            running.cancel(dice.randrange(come))
        step = running.step()
        assert not step.failures, step.failures
        ended += sum(event.finish_reason is not None for _, event in step.events)
        most = max(most, metrics().cache_usage)
    running._pipeline.step()  # what was let go is counted by the next one
    left = [metrics().requests, metrics().cache_usage, len(running._computed)]
    reckoned = BLOCKS * BLOCK_BYTES * layers_of(Path(order.folder))
    return {"ended": ended, "most": most, "left": left, "bytes": [metrics().kv_cache_size_in_bytes, reckoned]}


def layers_of(folder: Path) -> int:
    """Of the model."""
    layers: int = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    return layers


print(json.dumps(asyncio.run(live(Path(sys.argv[1]), int(sys.argv[2])))), flush=True)
