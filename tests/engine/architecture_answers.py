"""Run by the engine's Python: each tiny model's greedy answers, by ``generate`` and by this engine, alone and together.

Usage: ``python architecture_answers.py FOLDER [TYPE ...]``; prints a line of JSON for each.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tiny_models import TEXT_MODELS, build
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from headrace_engines.serving.generator import Generation, GenerationRequest, Sampling
from headrace_engines.transformers import pace
from headrace_engines.transformers.attention import attend_as_cpus_should
from headrace_engines.transformers.batch import DynamicBatch
from headrace_engines.transformers.cache_cost import cost_of
from headrace_engines.transformers.checkpoint import load_weights
from headrace_engines.transformers.forward import PROBE_TOKENS, Forward, probe
from headrace_engines.transformers.kinds import kind_of, read_config
from headrace_engines.transformers.loading import LOADERS, forward_of
from headrace_engines.transformers.packed import multiplies_bfloat16, pack
from headrace_engines.transformers.sequence import Sequence

NEW_TOKENS = 24
LENGTHS = (3, 41, 1, 12, 20, 7)
LEAVES_AFTER = 5

ROUNDED = 2**-7
"""Of the largest logit: what one rounding more may come to."""

# Small, so that these short prompts come in several pieces.
pace.PIECE_TOKENS, pace.COMPANY_TOKENS, pace.COMPANY_TOKENS_PER_ROW = 24, 8, 1


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


class Answered(NamedTuple):
    """What a batch said.

    Attributes:
        answers: Of each sequence.
        nothing_left: Whether the cache was empty then.
        rows_per_pass: Sequences that were computed together, on average.
    """

    answers: list[list[int]]
    nothing_left: bool
    rows_per_pass: float


def by_batch(
    forward: Forward, every: list[list[int]], *, budget: tuple[int, int] = (8, 1250), at_once: bool = False
) -> Answered:
    """Join one after the other or all at once, with one more that leaves before its end.

    Args:
        forward: Runs the model.
        every: Prompts.
        budget: What a block of so many rows and columns takes.
        at_once: Whether none waits for another's step.
    """
    cost = cost_of(probe(forward), PROBE_TOKENS)
    batch = DynamicBatch(forward, max_running=8, budget_bytes=max(1, cost.block_bytes(*budget)), cost=cost)
    sequences = [sequence_of(prompt_ids) for prompt_ids in every]
    leaver = sequence_of(every[0][::-1])
    waiting = [sequences[0], leaver, *sequences[1:]] if len(sequences) > 1 else list(sequences)
    with counted_passes(forward) as rows_of_passes:
        while waiting or len(batch):
            while waiting and batch.has_room(waiting[0]):
                batch.add(waiting.pop(0))
                if not at_once:
                    break
            for _, event in batch.step():
                if isinstance(event, Exception):
                    raise event
            leaver.cancelled = leaver.generated >= LEAVES_AFTER
    answers = [sequence.token_ids[sequence.prompt_len :] for sequence in sequences]
    return Answered(answers, batch.cache_used == 0, sum(rows_of_passes) / len(rows_of_passes))


@contextmanager
def counted_passes(forward: Forward) -> Iterator[list[int]]:
    """How many rows each pass has, while this lasts."""
    rows_of_passes = []
    run = forward.run

    def counting(state: Any, token_ids: list[list[int]], *lengths: list[int]) -> Any:
        rows_of_passes.append(len(token_ids))
        return run(state, token_ids, *lengths)

    forward.run = counting  # type: ignore[method-assign]
    try:
        yield rows_of_passes
    finally:
        forward.run = run  # type: ignore[method-assign]


def logits_twice(forward: Forward, prompt_ids: list[int]) -> Any:
    """Of a prompt and of one token more."""
    sequence = sequence_of(prompt_ids)
    token_ids = forward.token_ids(sequence)
    state = forward.start([prompt_ids])
    first = forward.run(state, [token_ids], [len(token_ids)], [len(token_ids)])
    return torch.stack([first, forward.run(state, [[5]], [len(token_ids) + 1], [len(token_ids) + 1])])


@contextmanager
def attending() -> Iterator[None]:
    """Attention as `load` has it computed on a CPU, while this lasts."""
    attend_as_cpus_should()
    try:
        yield
    finally:
        AttentionInterface.register("sdpa", sdpa_attention_forward)
        del os.environ["TRANSFORMERS_SDPA_FORCE_GQA"]


def hastened(path: Path, config: Any, kind: Any, prompt_ids: list[int]) -> dict[str, Any]:
    """What is done for speed in bfloat16, and whether the logits are still the same.

    To the bit, unless torch computes a product in two steps (of a slice of a larger tensor, and adds the bias then) and
    rounds twice, or heads that share keys are computed in another order.
    """
    model = load_weights(path, config, LOADERS[kind], "bfloat16").eval()
    plain = logits_twice(forward_of(kind, model), prompt_ids)
    allowed = ROUNDED * float(plain.abs().max())
    with attending():
        attended = logits_twice(forward_of(kind, model), prompt_ids)
    matrices = pack(model)
    packed = logits_twice(forward_of(kind, model), prompt_ids)
    left = {name.split(".")[-1] for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    return {
        "attends": bool(torch.allclose(attended, plain, rtol=0, atol=allowed)),
        "packs": bool(torch.allclose(packed, plain, rtol=0, atol=allowed)),
        "matrices_packed": matrices,
        "left_plain": sorted(left),
        "tied": model.get_output_embeddings() is not None
        and model.get_output_embeddings().weight is model.get_input_embeddings().weight,
        "can_pack": multiplies_bfloat16(),
    }


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
        alone = [by_batch(forward, [prompt_ids]).answers[0] for prompt_ids in every]
        together = by_batch(forward, every)
        at_once = by_batch(forward, every, at_once=True)
        pressed = by_batch(forward, every, budget=(3, 77))
        in_bfloat16 = hastened(path, config, kind, every[3])
    return in_bfloat16 | {
        "kind": kind,
        "shares": forward.abilities.shares,
        "distinct": len({tuple(answer) for answer in expected}),
        "alone": alone == expected,
        "together": together.answers == expected,
        "at_once": at_once.answers == expected,
        "pressed": pressed.answers == expected,
        "rows_per_pass": at_once.rows_per_pass,
        "nothing_left": together.nothing_left and at_once.nothing_left and pressed.nothing_left,
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
