"""Draws the next tokens of many sequences at once: temperature, top-k, top-p and min-p, without sorting a vocabulary.

What each of the three leaves are the likeliest tokens down to some score. So the likeliest few are looked at, and more
only where those left do not lie among them: transformers' own warpers sort every score of every sequence, for 49,152 of
which a CPU takes longer than a small model for the whole token (``bench/NOTES.md``, 2026-11-29).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from headrace_engines.serving.generator import Sampling

LOOKED_AT = (64, 1024)
"""So many of the likeliest tokens first, then so many, then all."""


class _Limits(NamedTuple):
    """What each row leaves of its tokens, as columns of shape (rows, 1); 0, 1 and 0 leave all."""

    top_k: Any
    top_p: Any
    min_p: Any

    def of(self, rows: Any) -> _Limits:
        return _Limits(*(column[rows] for column in self))


def draw(scores: Any, rows: Sequence[Sampling], uniform: Any) -> list[int | None]:
    """A token for each row, drawn in the order of transformers' ``generate``: temperature, top-k, top-p, min-p.

    Args:
        scores: Of shape (rows, vocabulary), in float32; minus infinity for what may not come. They are changed.
        rows: How each is drawn.
        uniform: For each row a random number from 0 to 1, without 1; of shape (rows,), in float64.

    Returns:
        The token's id; None where the scores are not finite, before or after they are divided by the temperature.
    """
    device = scores.device
    scores /= torch.tensor([[row.temperature] for row in rows], device=device)
    highest = scores.amax(dim=-1, keepdim=True)
    token_ids = torch.zeros(len(rows), dtype=torch.long, device=device)
    limits = _Limits(
        torch.tensor([[row.top_k] for row in rows], device=device),
        torch.tensor([[row.top_p] for row in rows], dtype=torch.float64, device=device),
        torch.tensor([[row.min_p] for row in rows], dtype=torch.float64, device=device),
    )
    finite = torch.isfinite(highest[:, 0])
    bounded = torch.tensor([row.top_k > 0 or row.top_p < 1 or row.min_p > 0 for row in rows], device=device)
    free = (finite & ~bounded).nonzero()[:, 0]
    if len(free):
        token_ids[free] = _by_weight(torch.exp(scores[free] - highest[free]).double(), uniform[free])
    left = (finite & bounded).nonzero()[:, 0]
    for most in (*LOOKED_AT, scores.shape[-1]):
        if len(left):
            settled, drawn = _among(scores[left], highest[left], limits.of(left), uniform[left], most)
            token_ids[left[settled]] = drawn[settled]
            left = left[~settled]
    return [token_id if there else None for token_id, there in zip(token_ids.tolist(), finite.tolist(), strict=True)]


def _among(scores: Any, highest: Any, limits: _Limits, uniform: Any, most: int) -> tuple[Any, Any]:
    """Draw from the likeliest tokens; which rows have all that is left of theirs among those, and what was drawn.

    Args:
        scores: Of shape (rows, vocabulary).
        highest: The highest of each row, of shape (rows, 1).
        limits: What is left.
        uniform: Of shape (rows,).
        most: How many tokens are looked at.
    """
    values, ids = scores.topk(min(most, scores.shape[-1]), dim=-1)
    weights = torch.exp(values - highest).double()
    last = weights[:, -1:]
    all_seen = (last == 0) | (values.shape[-1] == scores.shape[-1])
    by_rank = limits.top_k > 0
    lowest = values.gather(1, (limits.top_k.clamp(1, values.shape[-1]) - 1))  # of equal scores all are left
    ranked = weights * ((values >= lowest) | ~by_rank)
    whole = torch.exp(scores - highest).sum(dim=-1, keepdim=True, dtype=torch.float64)
    total = torch.where(by_rank, ranked.sum(dim=-1, keepdim=True), whole)
    reached = ranked.cumsum(dim=-1)
    nucleus = (reached - ranked < limits.top_p * total) | (limits.top_p >= 1)
    nucleus[:, 0] = True
    kept = ranked * nucleus * (weights >= limits.min_p)
    ranks_seen = (limits.top_k < values.shape[-1]) & (values[:, -1:] < lowest)
    masses_seen = (limits.top_p < 1) & (reached[:, -1:] >= limits.top_p * total)
    bounded = torch.where(by_rank, ranks_seen, masses_seen | (last < limits.min_p))
    return (all_seen | bounded)[:, 0], ids.gather(1, _by_weight(kept, uniform)[:, None])[:, 0]


def _by_weight(weights: Any, uniform: Any) -> Any:
    """For each row the first place at which its share of the row's weights is passed; none of weight 0."""
    reached = weights.cumsum(dim=-1)
    places = torch.searchsorted(reached, (uniform * reached[:, -1])[:, None], right=True)
    heaviest = weights.argmax(dim=-1)  # where rounding has left the end
    places = places[:, 0].clamp(max=weights.shape[-1] - 1)
    return torch.where(weights.gather(1, places[:, None])[:, 0] > 0, places, heaviest)
