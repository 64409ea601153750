"""Which token comes next, for one sequence."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from headrace_engines.serving.generator import GenerationFailed, GenerationRequest, Sampling, SamplingImpossible

# vLLM's _SAMPLING_EPS: below this a temperature only overflows; the likeliest token is what it means.
_GREEDY_BELOW_TEMPERATURE = 1e-5


class Sampler:
    """Picks tokens in the order of transformers' own ``generate``: penalties, temperature, top-k, top-p, min-p.

    The random numbers are the sequence's own, so a seed gives the same text whatever else runs.

    Args:
        request: Says how to pick.
        end_ids: End-of-sequence tokens, kept out until the request's `min_tokens`.
        device: Where the logits are.
    """

    def __init__(self, request: GenerationRequest, end_ids: frozenset[int], device: str) -> None:
        sampling = request.sampling
        self._prompt_len = len(request.prompt_ids)
        self._min_tokens = request.min_tokens
        self._end_ids = sorted(end_ids)
        self._presence = sampling.presence_penalty
        self._frequency = sampling.frequency_penalty
        self._repetition = (
            RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty) if sampling.repetition_penalty != 1 else None
        )
        self._greedy = sampling.temperature < _GREEDY_BELOW_TEMPERATURE
        self._warpers = LogitsProcessorList() if self._greedy else _warpers(sampling)
        self._random = torch.Generator(device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def pick(self, logits: Any, token_ids: list[int]) -> int:
        """The next token after `token_ids` (prompt included), from float32 `logits` of shape (1, vocabulary).

        Raises:
            GenerationFailed: The logits are not numbers.
            SamplingImpossible: They are, and what the request makes of them is not.
        """
        scores = self._penalised(logits, token_ids)
        if len(token_ids) - self._prompt_len < self._min_tokens:
            scores[:, self._end_ids] = -torch.inf
        scores = self._warpers(None, scores)
        if not _can_be_picked_from(scores):
            if _can_be_picked_from(logits):
                raise SamplingImpossible
            raise GenerationFailed("ENGINE_BAD_TENSOR", "The model computed scores that are not finite.")
        if self._greedy:
            return int(scores.argmax(dim=-1))
        probabilities = torch.softmax(scores, dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=self._random))

    def _penalised(self, scores: Any, token_ids: list[int]) -> Any:
        if self._repetition is not None:
            scores = self._repetition(torch.tensor([token_ids], device=scores.device), scores)
        if self._presence or self._frequency:
            generated = torch.tensor(token_ids[self._prompt_len :], dtype=torch.long, device=scores.device)
            counts = torch.bincount(generated, minlength=scores.shape[-1])
            scores = scores - self._presence * (counts > 0) - self._frequency * counts
        return scores


def _can_be_picked_from(scores: Any) -> bool:
    """Whether the highest score is finite: NaN, and an infinity anywhere but below, come out as the maximum."""
    return bool(torch.isfinite(scores.max()))


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.temperature != 1:
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers
