"""Run by the engine's Python: the whole engine on a device that refuses tensors of the CPU, and on the CPU.

Usage: ``python device_answers.py FOLDER [TYPE ...]``; prints a line of JSON for each tiny model.
"""

import asyncio
import json
import os
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from strict_device import strict_device
from tiny_models import ENCODERS, TEXT_MODELS, build
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from headrace_engines.serving.generator import GenerationRequest, Generator, Grammar, Sampling
from headrace_engines.transformers import pace
from headrace_engines.transformers.loading import LoadOptions, load

NEW_TOKENS = 4
_SHORT, _MIDDLE, _LONG = [3, 1, 4], [9, 11, 5, 60, 61], list(range(5, 34))

REQUESTS = [
    GenerationRequest(
        prompt_ids=prompt_ids,
        max_tokens=NEW_TOKENS,
        min_tokens=least,
        sampling=sampling,
        grammar=grammar,
        top_logprobs=3,
    )
    for prompt_ids, least, sampling, grammar in (
        (_LONG, 2, Sampling(temperature=0, repetition_penalty=1.2), None),
        (_SHORT, 2, Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.5), None),
        (_MIDDLE, 0, Sampling(temperature=0, logit_bias={7: 2.0, 9: -3.0}), None),
        (_SHORT, 0, Sampling(temperature=0.7, seed=5, top_k=20, top_p=0.9, min_p=0.01), None),
        (_SHORT, 0, Sampling(temperature=0), Grammar(kind="regex", text="[a-z]{2,9}")),
    )
]
"""Every way of choosing a token."""

# Small, so that the longer prompt comes in several pieces.
pace.PIECE_TOKENS, pace.COMPANY_TOKENS, pace.COMPANY_TOKENS_PER_ROW = 12, 8, 1


def options(folder: Path, device: str) -> LoadOptions:
    """In float32, so that neither device rounds more than the other."""
    return LoadOptions(
        folder=folder,
        dtype="float32",
        device=device,
        threads=1,
        max_model_len=None,
        max_running=8,
        max_waiting=8,
        kv_cache_bytes=0,
    )


async def answers_on(device: str, folder: Path) -> Any:
    """Everything at once: token ids, or vectors."""
    loop = asyncio.get_running_loop()
    served = load(options(folder, device), loop, lambda fatal: print(fatal.line, file=sys.stderr))
    if served.embedder is not None:
        return await served.embedder.embed([_LONG, _SHORT], lambda tokens: None)
    assert served.generator is not None
    return await asyncio.gather(*(_answer(served.generator, request) for request in REQUESTS))


def as_transformers_attends() -> None:
    """What the engine has changed for a CPU is undone: a GPU has it as it comes."""
    AttentionInterface.register("sdpa", sdpa_attention_forward)
    os.environ.pop("TRANSFORMERS_SDPA_FORCE_GQA", None)


async def _answer(generator: Generator, request: GenerationRequest) -> list[int]:
    return [token_id async for event in generator.submit(request) for token_id in event.token_ids]


def compare(name: str, folder: Path) -> dict[str, Any]:
    """The answers of the device beside those of the CPU."""
    path = build(name, folder)
    said = {}
    for device in ("cpu", "gpu"):
        as_transformers_attends()
        with strict_device() if device == "gpu" else nullcontext():
            said[device] = asyncio.run(answers_on(device, path))
    return said


transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
for wanted in sys.argv[2:] or [*TEXT_MODELS, *ENCODERS]:
    try:
        result = compare(wanted, Path(sys.argv[1]))
    except Exception:
        result = {"error": traceback.format_exc()[-2500:]}
    print(json.dumps({"name": wanted} | result), flush=True)
