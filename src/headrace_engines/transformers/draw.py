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
    if any(row.temperature != 1 for row in rows):
        scores /= torch.tensor([[row.temperature] for row in rows], device=device)
    probabilities = torch.softmax(scores, dim=-1)  # NaN throughout a row whose highest score is not finite
    token_ids: list[int | None] = [None] * len(rows)
    free = [place for place, row in enumerate(rows) if row.top_k <= 0 and row.top_p >= 1 and row.min_p <= 0]
    if free:
        weights = probabilities[free]
        _note(token_ids, free, _by_weight(weights.double(), uniform[free]), torch.isfinite(weights[:, 0]))
    left = [place for place in range(len(rows)) if place not in {*free}]
    limits = _Limits(
        torch.tensor([[row.top_k] for row in rows], device=device),
        torch.tensor([[row.top_p] for row in rows], dtype=torch.float64, device=device),
        torch.tensor([[row.min_p] for row in rows], dtype=torch.float64, device=device),
    )
    for most in (*LOOKED_AT, probabilities.shape[-1]):
        if left:
            settled, drawn, finite = _among(probabilities[left], limits.of(left), uniform[left], most)
            _note(token_ids, left, drawn, settled & finite)
            left = [place for place, there in zip(left, (settled | ~finite).tolist(), strict=True) if not there]
    return token_ids


def _note(token_ids: list[int | None], places: Sequence[int], drawn: Any, good: Any) -> None:
    for place, token_id, is_good in zip(places, drawn.tolist(), good.tolist(), strict=True):
        if is_good:
            token_ids[place] = token_id


def _among(probabilities: Any, limits: _Limits, uniform: Any, most: int) -> tuple[Any, Any, Any]:
    """Draw from the likeliest tokens.

    Args:
        probabilities: Of shape (rows, vocabulary).
        limits: What is left.
        uniform: Of shape (rows,).
        most: How many tokens are looked at.

    Returns:
        Of shape (rows,): whether all that is left of the row's tokens is among those; what was drawn; and whether the
        probabilities are numbers.
    """
    values, ids = probabilities.topk(min(most, probabilities.shape[-1]), dim=-1)
    weights = values.double()
    last = weights[:, -1:]
    by_rank = limits.top_k > 0
    lowest = weights.gather(1, limits.top_k.clamp(1, weights.shape[-1]) - 1)  # of equal ones all are left
    ranked = weights * ((weights >= lowest) | ~by_rank)
    total = torch.where(by_rank, ranked.sum(dim=-1, keepdim=True), 1.0)
    reached = ranked.cumsum(dim=-1)
    nucleus = (reached - ranked < limits.top_p * total) | (limits.top_p >= 1)
    nucleus[:, 0] = True
    least = limits.min_p * weights[:, :1]
    kept = ranked * nucleus * (weights >= least)
    masses_seen = (limits.top_p < 1) & (reached[:, -1:] >= limits.top_p * total)
    all_seen = (last == 0) | (weights.shape[-1] == probabilities.shape[-1])
    bounded = torch.where(by_rank, last < lowest, masses_seen | (last < least))
    drawn = ids.gather(1, _by_weight(kept, uniform)[:, None])
    return (all_seen | bounded)[:, 0], drawn[:, 0], torch.isfinite(weights[:, 0])


def _by_weight(weights: Any, uniform: Any) -> Any:
    """For each row the first place at which its share of the row's weights is passed; none of weight 0."""
    reached = weights.cumsum(dim=-1)
    places = torch.searchsorted(reached, (uniform * reached[:, -1])[:, None], right=True)
    places = places.clamp(max=weights.shape[-1] - 1)
    heaviest = weights.argmax(dim=-1, keepdim=True)  # where rounding has left the end
    return torch.where(weights.gather(1, places) > 0, places, heaviest)[:, 0]
