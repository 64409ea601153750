"""Run by the engine's Python: tokens drawn for many sequences at once, beside transformers' own warpers.

Prints, for each case, how far the shares of tokens are from the probabilities that the warpers leave, and how many
different tokens came.
"""

import json
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from headrace_engines.serving.generator import GenerationRequest, Sampling
from headrace_engines.transformers import draw as drawing
from headrace_engines.transformers import sampler as sampling_of_many
from headrace_engines.transformers.draw import draw
from headrace_engines.transformers.sampler import Sampler, pick_tokens

DRAWS = 2000

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "hot": {"temperature": 1.7},
    "cold": {"temperature": 0.2, "top_p": 0.9},
    "top-k": {"top_k": 5},
    "top-k beyond the first look": {"top_k": 200},
    "top-k beyond the vocabulary": {"top_k": 10**6},
    "top-p": {"top_p": 0.8},
    "nearly nothing of top-p": {"top_p": 1e-9},
    "nearly all of top-p": {"top_p": 0.999},
    "min-p": {"min_p": 0.3},
    "only the likeliest": {"min_p": 1.0},
    "min-p beyond the first look": {"min_p": 0.001},
    "top-k, then top-p": {"top_k": 40, "top_p": 0.7},
    "all of them": {"temperature": 0.7, "top_k": 100, "top_p": 0.95, "min_p": 0.02},
}


def expected(scores: Any, sampling: Sampling) -> Any:
    """Probabilities as transformers' generate makes them."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return torch.softmax(warpers(None, scores[None].clone()).double(), dim=-1)[0]


def vocabularies() -> dict[str, Any]:
    """Scores of a few kinds."""
    rng = torch.Generator().manual_seed(5)
    steep = torch.randn(2500, generator=rng) * 3
    tied = (torch.randn(2000, generator=rng) * 2).round()
    masked = torch.full((2000,), -torch.inf)
    masked[torch.arange(0, 2000, 48)] = torch.randn(42, generator=rng)
    return {
        "steep": steep,
        "flat": torch.randn(2500, generator=rng) / 50,
        "tied": tied,
        "masked": masked,
        "small": torch.randn(20, generator=rng),
    }


def distance(scores: Any, sampling: Sampling) -> tuple[float, int]:
    """How far shares are from probabilities, at random numbers that are spread evenly; and how many tokens came.

    Where tokens have the same score, which of them is left at the edge is chance in both: there shares of scores count.
    """
    uniform = (torch.arange(DRAWS, dtype=torch.float64) + 0.5) / DRAWS
    drawn = draw(scores.repeat(DRAWS, 1), [sampling] * DRAWS, uniform)
    assert None not in drawn
    shares = torch.bincount(torch.tensor(drawn), minlength=len(scores)).double() / DRAWS
    off = shares - expected(scores, sampling)
    values, score = scores.unique(return_inverse=True)
    tied = torch.zeros(len(values), dtype=torch.float64).index_add(0, score, off)
    return min(float(off.abs().max()), float(tied.abs().max())), len(set(drawn))


def in_company() -> dict[str, Any]:
    """Rows with seeds, each alone and all of them together; and what fails beside them."""
    rng = torch.Generator().manual_seed(9)
    logits = (torch.randn(len(CASES) + 3, 3000, generator=rng) * 2).bfloat16()
    logits[-2:, 7] = torch.nan
    sampling = [Sampling(seed=seed, **case) for seed, case in enumerate(CASES.values())]
    sampling[3], sampling[8] = Sampling(temperature=0), Sampling(seed=8, repetition_penalty=1.3, presence_penalty=0.5)
    sampling += [Sampling(seed=1, temperature=1e-4), Sampling(seed=2), Sampling(seed=3, top_k=2000)]
    logits[-3] *= 1e35  # finite, and not any more when it is divided

    def rows() -> list[tuple[Sampler, list[int]]]:
        requests = [
            GenerationRequest(prompt_ids=[0], max_tokens=9, sampling=each, top_logprobs=2 if place % 5 == 1 else None)
            for place, each in enumerate(sampling)
        ]
        return [(Sampler(request, frozenset(), "cpu"), [0]) for request in requests]

    def told(picked: Any) -> Any:
        return getattr(picked, "token_id", None) if hasattr(picked, "token_id") else type(picked).__name__

    sampling_of_many._DRAWN_AT_ONCE = 4 * logits.shape[-1]
    together = [told(one) for one in pick_tokens(rows(), logits)]
    alone = [told(pick_tokens([row], logits[at : at + 1])[0]) for at, row in enumerate(rows())]
    return {"together": together, "alone": alone}


answers: dict[str, Any] = {"in company": in_company(), "apart": {}, "looked at": list(drawing.LOOKED_AT)}
for kind, scores in vocabularies().items():
    for case, fields in CASES.items():
        answers["apart"][f"{kind}, {case}"] = distance(scores, Sampling(**fields))
print(json.dumps(answers))
