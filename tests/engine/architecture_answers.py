"""Run by the engine's Python: each tiny model's greedy answers, by ``generate`` and by this engine, alone and together.

Usage: ``python architecture_answers.py FOLDER [TYPE ...]``; prints a line of JSON for each.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_models import TEXT_MODELS, build

from headrace_engines.serving.generator import Generation, GenerationRequest, Sampling
from headrace_engines.transformers import prompts
from headrace_engines.transformers.batch import DynamicBatch
from headrace_engines.transformers.cache_cost import cost_of
from headrace_engines.transformers.checkpoint import load_weights
from headrace_engines.transformers.forward import PROBE_TOKENS, Forward, probe
from headrace_engines.transformers.kinds import kind_of, read_config
from headrace_engines.transformers.loading import LOADERS, forward_of
from headrace_engines.transformers.sequence import Sequence

NEW_TOKENS = 24
LENGTHS = (3, 41, 1, 12, 20, 7)
LEAVES_AFTER = 5

# Small, so that these short prompts come in several pieces.
prompts.PIECE_TOKENS, prompts.COMPANY_TOKENS, prompts.COMPANY_TOKENS_PER_ROW = 24, 8, 1


def sequence_of(prompt_ids: list[int]) -> Sequence:
    """A greedy request for `NEW_TOKENS`."""
    request = GenerationRequest(
        prompt_ids=prompt_ids, max_tokens=NEW_TOKENS, ignore_eos=True, sampling=Sampling(temperature=0)
    )
    return Sequence(request, Generation(lambda: None), frozenset(), "cpu")


def by_generate(model: Any, prompt_ids: list[int]) -> list[int]:
    """The reference."""
    model.generation_config.eos_token_id = None
    ids = torch.tensor([prompt_ids])
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
    return answer[0, -NEW_TOKENS:].tolist()


def by_batch(forward: Forward, every: list[list[int]], *, budget_tokens: int = 10_000) -> tuple[list[list[int]], bool]:
    """Join one after the other, with one more that leaves before its end; and whether nothing was left behind."""
    cost = cost_of(probe(forward), PROBE_TOKENS)
    batch = DynamicBatch(forward, max_running=8, budget_bytes=max(1, cost.block_bytes(1, budget_tokens)), cost=cost)
    sequences = [sequence_of(prompt_ids) for prompt_ids in every]
    leaver = sequence_of(every[0][::-1])
    waiting = [sequences[0], leaver, *sequences[1:]] if len(sequences) > 1 else list(sequences)
    steps = 0
    while waiting or len(batch):
        if waiting and batch.has_room(waiting[0]):
            batch.add(waiting.pop(0))
        for _, event in batch.step():
            if isinstance(event, Exception):
                raise event
        leaver.cancelled = leaver.generated >= LEAVES_AFTER
        steps += 1
    return [sequence.token_ids[sequence.prompt_len :] for sequence in sequences], batch.cache_used == 0


def compare(name: str, folder: Path) -> dict[str, Any]:
    """What is equal, and how it was computed."""
    path = build(name, folder)
    config = read_config(path)
    kind = kind_of(path, config)
    model = load_weights(path, config, LOADERS[kind], "float32").eval()
    forward = forward_of(kind, model)
    random = torch.Generator().manual_seed(7)
    every = [torch.randint(0, 256, (length,), generator=random).tolist() for length in LENGTHS]
    with torch.inference_mode():
        expected = [by_generate(model, prompt_ids) for prompt_ids in every]
        alone = [by_batch(forward, [prompt_ids])[0][0] for prompt_ids in every]
        together, nothing_left = by_batch(forward, every)
        pressed, nothing_left_pressed = by_batch(forward, every, budget_tokens=230)
    return {
        "kind": kind,
        "shares": forward.abilities.shares,
        "distinct": len({tuple(answer) for answer in expected}),
        "alone": alone == expected,
        "together": together == expected,
        "pressed": pressed == expected,
        "nothing_left": nothing_left and nothing_left_pressed,
    }


transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()
torch.set_num_threads(2)
for wanted in sys.argv[2:] or TEXT_MODELS:
    try:
        result = compare(wanted, Path(sys.argv[1]))
    except Exception:
        result = {"error": traceback.format_exc()[-1500:]}
    print(json.dumps({"name": wanted} | result), flush=True)
