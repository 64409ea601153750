"""Run by the engine's Python: what requests ask for beyond sampling, at the generator of a tiny model.

Usage: ``python sampling_features.py FOLDER``; prints JSON.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_models import EOS, build
from transformers import AutoModelForCausalLM

from headrace_engines.serving.generator import GenerationFailed, GenerationRequest, Grammar, Sampling
from headrace_engines.transformers.loading import LoadOptions, load
from headrace_engines.transformers.sampler import Sampler, pick_tokens

PROMPT = [72, 101, 108, 108, 111]
GREEDY = Sampling(temperature=0)


async def outcome(generator: Any, **fields: Any) -> dict[str, Any]:
    """Everything that a request gets."""
    defaults: dict[str, Any] = {"prompt_ids": PROMPT, "max_tokens": 20, "sampling": GREEDY}
    request = GenerationRequest(**defaults | fields)
    answer: dict[str, Any] = {"ids": [], "logprobs": [], "finish": None, "error": None}
    try:
        async for event in generator.submit(request):
            answer["ids"] += event.token_ids
            answer["logprobs"] += [[one.logprob, *one.top] for one in event.logprobs]
            answer["finish"] = event.finish_reason
    except GenerationFailed as error:
        answer["error"] = error.code
    return answer


async def main() -> dict[str, Any]:
    """One answer for each thing that can be asked."""
    path = build("llama", Path(sys.argv[1]))
    options = LoadOptions(
        folder=path,
        dtype="float32",
        device="cpu",
        threads=1,
        max_model_len=None,
        max_running=8,
        max_waiting=8,
        kv_cache_bytes=0,
    )
    served = load(options, asyncio.get_running_loop(), lambda fatal: print(fatal.line, file=sys.stderr))
    generator, codec = served.generator, served.codec

    async def text(kind: Any, source: str) -> Any:
        answer = await outcome(generator, max_tokens=100, grammar=Grammar(kind=kind, text=source))
        return answer["error"] or [codec.decode(answer["ids"]), answer["finish"]]

    plain = (await outcome(generator, ignore_eos=True))["ids"]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()  # the reference
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([PROMPT])).logits[0, -1].float(), dim=-1)
    best = logprobs.topk(3)
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    without_an_end = Sampler(
        GenerationRequest(prompt_ids=PROMPT, max_tokens=5, min_tokens=3, sampling=GREEDY), frozenset(), "cpu"
    )
    return {
        "plain": plain,
        "eos": EOS,
        "biased": await outcome(generator, max_tokens=3, sampling=Sampling(temperature=0, logit_bias={65: 100.0})),
        "banned": await outcome(
            generator, ignore_eos=True, sampling=Sampling(temperature=0, logit_bias=dict.fromkeys(set(plain), -100.0))
        ),
        "stopped": await outcome(generator, ignore_eos=True, stop_token_ids=frozenset([plain[4]])),
        "stopped_late": await outcome(
            generator, ignore_eos=True, stop_token_ids=frozenset([plain[4]]), min_tokens=plain.index(plain[4]) + 3
        ),
        "without_an_end": pick_tokens([(without_an_end, PROMPT)], torch.eye(8)[2:3])[0].token_id,
        "logprobs": await outcome(generator, max_tokens=1, ignore_eos=True, top_logprobs=3),
        "expected_logprobs": [best.values.tolist(), best.indices.tolist()],
        "logprobs_of_biased": await outcome(
            generator, max_tokens=1, top_logprobs=0, sampling=Sampling(temperature=0, logit_bias={65: 100.0})
        ),
        "expected_of_biased": float(logprobs[65]),
        "schema": await text("json_schema", json.dumps(schema)),
        "regex": await text("regex", "(ab|cd){3}"),
        "bad_schema": await text("json_schema", '{"type": 7}'),
        "bad_regex": await text("regex", "(a"),
    }


print(json.dumps(asyncio.run(main())))
