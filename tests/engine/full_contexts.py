"""Run by the engine's Python: eight sequences that fill the context, in the memory that is planned for eight.

Usage: ``python full_contexts.py FOLDER TYPE``; prints JSON.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_models import build

from headrace_engines.serving.generator import Generation, GenerationRequest, Sampling
from headrace_engines.transformers.batch import DynamicBatch
from headrace_engines.transformers.cache_cost import cost_of
from headrace_engines.transformers.checkpoint import load_weights
from headrace_engines.transformers.forward import PROBE_TOKENS, CausalForward, probe
from headrace_engines.transformers.kinds import kind_of, read_config
from headrace_engines.transformers.loading import LOADERS
from headrace_engines.transformers.padded_cache import cache_bytes
from headrace_engines.transformers.sequence import Sequence

CONTEXT, SEQUENCES = 200, 8
dice = random.Random(8)


class WatchedBatch(DynamicBatch):
    """Counts who is put back, and measures what the caches hold."""

    put_back = 0
    most_bytes = 0

    def _displace(self, sequence: Sequence) -> None:
        self.put_back += 1
        super()._displace(sequence)

    def step(self) -> Any:
        """As its parent, and measured."""
        outcomes = super().step()
        held = sum(cache_bytes(self._forward.cache_of(group._state)) for group in self._groups)
        self.most_bytes = max(self.most_bytes, held)
        return outcomes


def sequence_of(prompt_tokens: int) -> Sequence:
    """One that ends where the context does."""
    request = GenerationRequest(
        prompt_ids=[dice.randrange(256) for _ in range(prompt_tokens)],
        max_tokens=CONTEXT - prompt_tokens,
        ignore_eos=True,
        sampling=Sampling(temperature=0),
    )
    return Sequence(request, Generation(lambda: None), frozenset(), "cpu")


torch.set_num_threads(1)
folder = build(sys.argv[2], Path(sys.argv[1]))
config = read_config(folder)
forward = CausalForward(load_weights(folder, config, LOADERS[kind_of(folder, config)], "float32").eval())
forward.most_columns = CONTEXT
cost = cost_of(probe(forward), PROBE_TOKENS)
budget_bytes = SEQUENCES * cost.block_bytes(1, CONTEXT)
batch = WatchedBatch(forward, max_running=SEQUENCES, budget_bytes=budget_bytes, cost=cost)
waiting = [sequence_of(prompt_tokens) for prompt_tokens in (100, 40, 120, 70, 100, 110, 90, 60)]
every, at_once = list(waiting), 0
with torch.inference_mode():
    while waiting or len(batch):
        while waiting and batch.has_room(waiting[0]):
            batch.add(waiting.pop(0))
        at_once = max(at_once, len(batch))
        batch.step()
told = {
    "at once": at_once,
    "lengths": sorted({len(sequence.token_ids) for sequence in every}),
    "put back": batch.put_back,
    "within budget": 0 < batch.most_bytes <= budget_bytes,
    "share of budget": batch.most_bytes / budget_bytes,
}
print(json.dumps(told))
