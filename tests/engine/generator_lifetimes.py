"""Run by the engine's Python: a thousand sequences come, go, are cancelled and refused; what is left behind?

Usage: ``python generator_lifetimes.py FOLDER SEED TYPE``; prints JSON.
"""

import asyncio
import gc
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tiny_models import build, tokenizer
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from headrace_engines.serving.generator import (
    GenerationFailed,
    GenerationRequest,
    Grammar,
    Limits,
    QueueFull,
    Sampling,
)
from headrace_engines.transformers.batch import DynamicBatch
from headrace_engines.transformers.cache_cost import cost_of
from headrace_engines.transformers.checkpoint import load_weights
from headrace_engines.transformers.forward import PROBE_TOKENS, probe
from headrace_engines.transformers.generator import SteppingGenerator
from headrace_engines.transformers.grammar import GrammarCompiler
from headrace_engines.transformers.kinds import kind_of, read_config
from headrace_engines.transformers.loading import LOADERS, forward_of
from headrace_engines.transformers.padded_cache import PaddedLayer, cache_bytes
from headrace_engines.transformers.sequence import Sequence

SEQUENCES = 1000
LIMITS = Limits(max_model_len=200, max_running=8, max_waiting=8, vocab_size=320)
LAYERS = (PaddedLayer, DynamicLayer, LinearAttentionLayer)
"""What caches are made of."""

GRAMMARS = [Grammar(kind="regex", text="[ab]{2,9}"), Grammar(kind="regex", text="(")]


class WatchedBatch(DynamicBatch):
    """Remembers the most memory that the caches of its groups, and of prompts being read, ever held."""

    most_bytes = 0

    def step(self) -> Any:
        """As its parent, and measured."""
        outcomes = super().step()
        states = [group._state for group in self._groups]
        states += [prompt.state for prompt in self._prompts._prompts if prompt.state is not None]
        held = sum(cache_bytes(self._forward.cache_of(state)) for state in states)
        self.most_bytes = max(self.most_bytes, held)
        return outcomes


def random_request(dice: random.Random) -> GenerationRequest:
    """Short or long, greedy or sampled, now and then with a grammar."""
    prompt = [dice.randrange(256) for _ in range(dice.choice([1, 5, 30, 120]))]
    sampling = Sampling(temperature=dice.choice([0.0, 1.0]), top_k=dice.choice([0, 5]))
    return GenerationRequest(
        prompt_ids=prompt,
        max_tokens=dice.randint(1, 60),
        sampling=sampling,
        grammar=dice.choice(GRAMMARS) if dice.random() < 0.1 else None,
        top_logprobs=dice.choice([None, None, 0, 3]),
    )


async def follow(generation: Any, patience: int | None, ends: Counter[str]) -> None:
    """Read until the end, or give up after so many tokens."""
    read = 0
    try:
        if patience == 0:
            generation.cancel()
        async for event in generation:
            read += len(event.token_ids)
            if event.finish_reason is not None:
                ends[event.finish_reason] += 1
                return
            if patience is not None and read >= patience:
                generation.cancel()
        ends["cancelled"] += 1
    except GenerationFailed as error:
        ends[error.code] += 1


NOTHING = {"load": [0, 0, 0.0], "open": 0, "tasks": 0, "sequences": 0, "layers": 0}


def left_behind(generator: SteppingGenerator) -> dict[str, Any]:
    """What is still there, looked for among all objects of the process."""
    gc.collect()
    types = Counter(type(thing) for thing in gc.get_objects())
    return {
        "load": list(generator.load()),
        "open": len(generator._open),
        "tasks": len(asyncio.all_tasks()) - 1,
        "sequences": types[Sequence],
        "layers": sum(types[layer] for layer in LAYERS),
    }


async def live(path: Path, seed: int) -> dict[str, Any]:
    """All sequences, from the first to the last, and what is there then."""
    config = read_config(path)
    kind = kind_of(path, config)
    model = load_weights(path, config, LOADERS[kind], "float32").eval()
    forward = forward_of(kind, model)
    cost = cost_of(probe(forward), PROBE_TOKENS)
    budget_bytes = cost.block_bytes(3, 200)
    batch = WatchedBatch(forward, max_running=LIMITS.max_running, budget_bytes=budget_bytes, cost=cost)
    end_ids = frozenset([257])
    generator = SteppingGenerator(
        batch=batch,
        limits=LIMITS,
        end_ids=end_ids,
        grammars=GrammarCompiler(tokenizer(), LIMITS.vocab_size, end_ids),
        device="cpu",
        threads=1,
        alive=lambda: probe(forward),
        loop=asyncio.get_running_loop(),
        on_death=lambda fatal: print(fatal.line, file=sys.stderr),
    )
    dice = random.Random(seed)
    ends: Counter[str] = Counter()
    following: set[asyncio.Task[None]] = set()
    for _ in range(SEQUENCES):
        try:
            generation = generator.submit(random_request(dice))
        except QueueFull:
            ends["refused"] += 1
            await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
            continue
        patience = dice.choice([None, None, 0, 1, 10])
        task = asyncio.create_task(follow(generation, patience, ends))
        following.add(task)
        task.add_done_callback(following.discard)
        if dice.random() < 0.3:
            await asyncio.sleep(0)
    await asyncio.gather(*following)
    del generation
    deadline_s = time.monotonic() + 10
    while (left := left_behind(generator)) != NOTHING and time.monotonic() < deadline_s:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.01)
    return {
        "ends": ends,
        "total": ends.total(),
        "left": left,
        "within_budget": 0 < batch.most_bytes <= budget_bytes,
    }


torch.set_num_threads(1)
print(json.dumps(asyncio.run(live(build(sys.argv[3], Path(sys.argv[1])), int(sys.argv[2])))))
