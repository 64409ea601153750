"""Which token comes next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from transformers import RepetitionPenaltyLogitsProcessor

from headrace_engines.serving.fatal import is_out_of_memory
from headrace_engines.serving.generator import (
    GenerationFailed,
    GenerationRequest,
    SamplingImpossible,
    TokenLogprob,
)
from headrace_engines.transformers.draw import draw
from headrace_engines.transformers.grammar import Follower

_log = logging.getLogger(__name__)

# vLLM's _SAMPLING_EPS: below this a temperature only overflows; the likeliest token is what it means.
_GREEDY_BELOW_TEMPERATURE = 1e-5

_DRAWN_AT_ONCE = 2**20
"""Scores of rows that are drawn together: 4 MB in float32, and some 40 MB in passing."""


Made = TypeVar("Made")


class Picked(NamedTuple):
    """A token, and how likely it was if that was asked for."""

    token_id: int
    logprob: TokenLogprob | None = None


class Sampler:
    """Picks one sequence's tokens, in the order of transformers' own ``generate``.

    Bias, penalties, what is not allowed (an early end, what leaves the grammar), and then `draw`. The random numbers
    are the sequence's own, so a seed chooses alike among the same scores whatever else runs.

    Args:
        request: Says how to pick.
        end_ids: End-of-sequence tokens; they and the request's own are kept out until its `min_tokens`.
        device: Where the logits are.

    Attributes:
        sampling: How it is drawn.
        takes_likeliest: Whether its next token is the one of the highest score, and not drawn.
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
        self.takes_likeliest = sampling.temperature < _GREEDY_BELOW_TEMPERATURE
        self.sampling = sampling
        self._device = device
        self._plain = not (
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

    def takes_scores_as_they_are(self, token_ids: list[int]) -> bool:
        """Whether the model's own scores decide on the next token, and nobody asks for more than the token."""
        return self._plain and not self._is_too_early(token_ids)

    def uniform(self) -> Any:
        """The sequence's next random number from 0 to 1, of shape (1,), in float64."""
        return torch.rand(1, dtype=torch.float64, device=self._device, generator=self._random)

    def shaped(self, logits: Any, token_ids: list[int]) -> Any:
        """What the request makes of the scores before anything is drawn, from float32 `logits` (1, vocabulary).

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
        if not _can_be_picked_from(scores):
            raise SamplingImpossible if _can_be_picked_from(logits) else _not_finite()
        return scores

    def took(self, token_id: int, logits: Any) -> Picked:
        """Go on by a token; `logits` are the model's own, of shape (1, vocabulary)."""
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
        logprobs = torch.log_softmax(logits[0].float(), dim=-1)
        values, ids = logprobs.topk(min(self._top_logprobs, len(logprobs)))
        return TokenLogprob(float(logprobs[token_id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


Row = tuple[Sampler, list[int]]
"""How a sequence is picked, and its tokens so far, prompt included."""


def pick_tokens(rows: Sequence[Row], logits: Any) -> list[Picked | GenerationFailed]:
    """The next token of each row, from `logits` of shape (rows, vocabulary).

    Rows that take the likeliest token of the model's own scores are picked for all at once; those that draw are drawn
    together, as many as `_DRAWN_AT_ONCE` lets.

    Args:
        rows: The sequences.
        logits: In the model's own type.
    """
    picked: dict[int, Picked | GenerationFailed] = {}
    together = [place for place, row in enumerate(rows) if not _is_plain(*row)]
    if len(together) < len(rows):
        highest, likeliest = logits.max(dim=-1)  # of 32 rows of 49,152 in bfloat16 a quarter of what argmax takes
        finite, token_ids = torch.isfinite(highest).tolist(), likeliest.tolist()
        for place in {*range(len(rows))} - {*together}:
            picked[place] = Picked(token_ids[place]) if finite[place] else _not_finite()
    at_once = max(1, _DRAWN_AT_ONCE // logits.shape[-1])
    for first in range(0, len(together), at_once):
        some = together[first : first + at_once]
        picked.update(zip(some, _pick_some([rows[place] for place in some], logits[some]), strict=True))
    return [picked[place] for place in range(len(rows))]


def _is_plain(sampler: Sampler, token_ids: list[int]) -> bool:
    """Whether it takes the model's likeliest token, whatever that is."""
    return sampler.takes_likeliest and sampler.takes_scores_as_they_are(token_ids)


def _pick_some(rows: Sequence[Row], logits: Any) -> list[Picked | GenerationFailed]:
    """Shape the scores of each, draw for those that draw, and have each go on by what came."""
    scores = logits.to(torch.float32, copy=True)
    failures: dict[int, GenerationFailed] = {}
    for place, (sampler, so_far) in enumerate(rows):
        if not sampler.takes_scores_as_they_are(so_far):
            shaped = _or_failure(sampler.shaped, scores[place : place + 1], so_far)
            if isinstance(shaped, GenerationFailed):
                failures[place] = shaped
            else:
                scores[place] = shaped[0]
    token_ids: dict[int, int | None] = {}
    drawing: list[int] = []
    for place, (sampler, _) in enumerate(rows):
        if place not in failures and sampler.takes_likeliest:
            token_ids[place] = int(scores[place].argmax())
        elif place not in failures:
            drawing.append(place)
    if drawing:
        samplers = [rows[place][0] for place in drawing]
        uniform = torch.cat([sampler.uniform() for sampler in samplers])
        drawn = draw(scores[drawing], [sampler.sampling for sampler in samplers], uniform)
        token_ids.update(zip(drawing, drawn, strict=True))
    return [
        failures[place] if place in failures else _taken(sampler, token_ids[place], logits[place : place + 1])
        for place, (sampler, _) in enumerate(rows)
    ]


def _taken(sampler: Sampler, token_id: int | None, logits: Any) -> Picked | GenerationFailed:
    if token_id is None:
        return SamplingImpossible() if _can_be_picked_from(logits) else _not_finite()
    return _or_failure(sampler.took, token_id, logits)


def _or_failure(work: Callable[..., Made], *arguments: Any) -> Made | GenerationFailed:
    """What a sequence's own sampling makes, or why that fails: no other sequence fails with it."""
    try:
        return work(*arguments)
    except GenerationFailed as error:
        return error
    except Exception as error:
        _log.exception("A token cannot be picked.")
        if is_out_of_memory(error):
            raise
        return GenerationFailed("ENGINE_DIED", f"No token can be picked for this request: {type(error).__name__}.")


def _not_finite() -> GenerationFailed:
    return GenerationFailed("ENGINE_BAD_TENSOR", "The model computed scores that are not finite.")


def _can_be_picked_from(scores: Any) -> bool:
    """Whether the highest score is finite: NaN, and an infinity anywhere but below, come out as the maximum."""
    return bool(torch.isfinite(scores.max()))
