"""Which token comes next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from headrace_engines.serving.fatal import is_out_of_memory
from headrace_engines.serving.generator import (
    GenerationFailed,
    GenerationRequest,
    Sampling,
    SamplingImpossible,
    TokenLogprob,
)
from headrace_engines.transformers.grammar import Follower

_log = logging.getLogger(__name__)

# vLLM's _SAMPLING_EPS: below this a temperature only overflows; the likeliest token is what it means.
_GREEDY_BELOW_TEMPERATURE = 1e-5


class Picked(NamedTuple):
    """A token, and how likely it was if that was asked for."""

    token_id: int
    logprob: TokenLogprob | None = None


class Sampler:
    """Picks one sequence's tokens, in the order of transformers' own ``generate``.

    Bias, penalties, what is not allowed (an early end, what leaves the grammar), temperature, top-k, top-p, min-p. The
    random numbers are the sequence's own, so a seed gives the same text whatever else runs.

    Args:
        request: Says how to pick.
        end_ids: End-of-sequence tokens; they and the request's own are kept out until its `min_tokens`.
        device: Where the logits are.

    Attributes:
        follower: What keeps the text on its way to match the request's grammar; to be set before the first token.
    """

    def __init__(self, request: GenerationRequest, end_ids: frozenset[int], device: str) -> None:
        sampling = request.sampling
        self._prompt_len = len(request.prompt_ids)
        self._min_tokens = request.min_tokens
        self._end_ids = sorted(end_ids | request.stop_token_ids)
        self._presence = sampling.presence_penalty
        self._frequency = sampling.frequency_penalty
        self._repetition = (
            RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty) if sampling.repetition_penalty != 1 else None
        )
        self._bias_ids = torch.tensor(list(sampling.logit_bias), dtype=torch.long, device=device)
        self._bias = torch.tensor(list(sampling.logit_bias.values()), device=device)
        self._top_logprobs = request.top_logprobs
        self.follower: Follower | None = None
        self._greedy = sampling.temperature < _GREEDY_BELOW_TEMPERATURE
        self._warpers = LogitsProcessorList() if self._greedy else _warpers(sampling)
        self._plain = self._greedy and not (
            sampling.logit_bias or self._penalises or request.grammar or request.top_logprobs is not None
        )
        self._random = torch.Generator(device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    @property
    def _penalises(self) -> bool:
        return bool(self._repetition or self._presence or self._frequency)

    def takes_likeliest(self, token_ids: list[int]) -> bool:
        """Whether the next token is the model's likeliest, with nothing else to it."""
        return self._plain and not self._is_too_early(token_ids)

    def pick(self, logits: Any, token_ids: list[int]) -> Picked:
        """The next token after `token_ids` (prompt included), from float32 `logits` of shape (1, vocabulary).

        Raises:
            GenerationFailed: The logits are not numbers.
            SamplingImpossible: They are, and what the request makes of them is not.
        """
        scores = self._penalised(self._biased(logits), token_ids)
        if self._is_too_early(token_ids):
            scores = scores.index_fill(
                1, torch.tensor(self._end_ids, dtype=torch.long, device=scores.device), -torch.inf
            )
        if self.follower is not None:
            scores = self.follower.allowed(scores)
        scores = self._warpers(None, scores)
        if not _can_be_picked_from(scores):
            if _can_be_picked_from(logits):
                raise SamplingImpossible
            raise GenerationFailed("ENGINE_BAD_TENSOR", "The model computed scores that are not finite.")
        if self._greedy:
            token_id = int(scores.argmax(dim=-1))
        else:
            token_id = int(torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=self._random))
        if self.follower is not None:
            self.follower.take(token_id)
        return Picked(token_id, self._logprob(logits, token_id))

    def _is_too_early(self, token_ids: list[int]) -> bool:
        return len(token_ids) - self._prompt_len < self._min_tokens

    def _biased(self, scores: Any) -> Any:
        return scores.index_add(1, self._bias_ids, self._bias[None, :]) if len(self._bias_ids) else scores

    def _penalised(self, scores: Any, token_ids: list[int]) -> Any:
        if self._repetition is not None:
            scores = self._repetition(torch.tensor([token_ids], device=scores.device), scores)
        if self._presence or self._frequency:
            generated = torch.tensor(token_ids[self._prompt_len :], dtype=torch.long, device=scores.device)
            counts = torch.bincount(generated, minlength=scores.shape[-1])
            scores = scores - self._presence * (counts > 0) - self._frequency * counts
        return scores

    def _logprob(self, logits: Any, token_id: int) -> TokenLogprob | None:
        if self._top_logprobs is None:
            return None
        logprobs = torch.log_softmax(logits[0], dim=-1)
        values, ids = logprobs.topk(min(self._top_logprobs, len(logprobs)))
        return TokenLogprob(float(logprobs[token_id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def pick_tokens(rows: Sequence[tuple[Sampler, list[int]]], logits: Any) -> list[Picked | GenerationFailed]:
    """The next token of each row, from `logits` of shape (rows, vocabulary).

    Rows that take the likeliest token are picked for all at once, the others one by one.

    Args:
        rows: How each is picked, and its tokens so far.
        logits: In the model's own type.
    """
    highest, likeliest = logits.max(dim=-1)  # of 32 rows of 49,152 in bfloat16 a quarter of the time that argmax takes
    finite, token_ids = torch.isfinite(highest).tolist(), likeliest.tolist()
    return [
        Picked(token_ids[row])
        if finite[row] and sampler.takes_likeliest(so_far)
        else _pick_one(sampler, logits[row : row + 1], so_far)
        for row, (sampler, so_far) in enumerate(rows)
    ]


def _pick_one(sampler: Sampler, logits: Any, token_ids: list[int]) -> Picked | GenerationFailed:
    try:
        return sampler.pick(logits.to(torch.float32, copy=True), token_ids)
    except GenerationFailed as error:
        return error
    except Exception as error:
        _log.exception("A token cannot be picked.")
        if is_out_of_memory(error):
            raise
        return GenerationFailed("ENGINE_DIED", f"No token can be picked for this request: {type(error).__name__}.")


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
