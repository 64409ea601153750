"""Draws the next tokens of many sequences at once: temperature, top-k, top-p and min-p, seldom sorting a vocabulary.

What each of the three leaves are the likeliest tokens down to some score. So the likeliest few are looked at, and more
only where those left do not lie among them: transformers' own warper for top-p sorts every score of every sequence, for
49,152 of which a CPU takes as long as a small model for a token (``bench/NOTES.md``, 2026-11-29).
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

    def of(self, rows: Sequence[int]) -> _Limits:
        return _Limits(*(column[list(rows)] for column in self))


def draw(scores: Any, rows: Sequence[Sampling], uniform: Any) -> list[int | None]:
    """A token for each row, drawn in the order of transformers' ``generate``: temperature, top-k, top-p, min-p.

    Args:
        scores: Of shape (rows, vocabulary), in float32; minus infinity for what may not come. They are changed.
        rows: How each is drawn.
        uniform: For each row a random number from 0 to 1, without 1; of shape (rows,), in float64.

    Returns:
        The token's id; None where the scores are not finite, before or after they are divided by the temperature.
    """
    if any(row.temperature != 1 for row in rows):
        scores /= torch.tensor([[row.temperature] for row in rows], device=scores.device)
    probabilities = torch.softmax(scores, dim=-1)  # NaN throughout a row whose highest score is not finite
    token_ids: list[int | None] = [None] * len(rows)
    vocabulary = scores.shape[-1]
    ranks = [row.top_k if 0 < row.top_k < vocabulary else 0 for row in rows]
    free = [place for place, row in enumerate(rows) if not ranks[place] and row.top_p >= 1 and row.min_p <= 0]
    if free:
        weights = probabilities[free]
        _note(token_ids, free, _by_weight(weights.double(), uniform[free]), torch.isfinite(weights[:, 0]))
    left = [place for place in range(len(rows)) if place not in {*free}]
    limits = _limits(rows, ranks, scores.device)
    for most in LOOKED_AT:
        if some := [place for place in left if ranks[place] < most]:
            settled, drawn, finite = _among(scores[some], probabilities[some], limits.of(some), uniform[some], most)
            _note(token_ids, some, drawn, settled & finite)
            over = {place for place, there in zip(some, (settled | ~finite).tolist(), strict=True) if there}
            left = [place for place in left if place not in over]
    for place in left:
        if torch.isfinite(probabilities[place, 0]):
            token_ids[place] = _among_all(scores[[place]], probabilities[[place]], limits.of([place]), uniform[[place]])
    return token_ids


def _limits(rows: Sequence[Sampling], ranks: Sequence[int], device: Any) -> _Limits:
    return _Limits(
        torch.tensor([[rank] for rank in ranks], device=device),
        torch.tensor([[row.top_p] for row in rows], dtype=torch.float64, device=device),
        torch.tensor([[row.min_p] for row in rows], dtype=torch.float64, device=device),
    )


def _note(token_ids: list[int | None], places: Sequence[int], drawn: Any, good: Any) -> None:
    for place, token_id, is_good in zip(places, drawn.tolist(), good.tolist(), strict=True):
        if is_good:
            token_ids[place] = token_id


def _among(scores: Any, probabilities: Any, limits: _Limits, uniform: Any, most: int) -> tuple[Any, Any, Any]:
    """Draw from the likeliest tokens.

    Args:
        scores: Of shape (rows, vocabulary).
        probabilities: Theirs.
        limits: What is left.
        uniform: Of shape (rows,).
        most: How many tokens are looked at.

    Returns:
        Of shape (rows,): whether all that is left of the row's tokens is among those; what was drawn; and whether the
        probabilities are numbers.
    """
    values, ids = scores.topk(min(most, scores.shape[-1]), dim=-1)
    weights = probabilities.gather(1, ids).double()
    last = weights[:, -1:]
    by_rank = limits.top_k > 0
    lowest = values.gather(1, limits.top_k.clamp(1, values.shape[-1]) - 1)  # of equal ones all are left
    ranked = weights * ((values >= lowest) | ~by_rank)
    total = torch.where(by_rank, ranked.sum(dim=-1, keepdim=True), 1.0)
    reached = ranked.cumsum(dim=-1)
    nucleus = (reached - ranked < limits.top_p * total) | (limits.top_p >= 1)
    nucleus[:, 0] = True
    least = limits.min_p * weights[:, :1]
    kept = ranked * nucleus * (weights >= least)
    masses_seen = (limits.top_p < 1) & (reached[:, -1:] >= limits.top_p * total)
    all_seen = (last == 0) | (weights.shape[-1] == probabilities.shape[-1])
    bounded = torch.where(by_rank, values[:, -1:] < lowest, masses_seen | (last < least))
    drawn = ids.gather(1, _by_weight(kept, uniform)[:, None])
    return (all_seen | bounded)[:, 0], drawn[:, 0], torch.isfinite(weights[:, 0])


def _among_all(scores: Any, probabilities: Any, limits: _Limits, uniform: Any) -> int:
    """Draw from all tokens of one row; only top-p needs them in order."""
    if limits.top_p < 1:
        return int(_among(scores, probabilities, limits, uniform, scores.shape[-1])[1])
    kept = probabilities >= limits.min_p.float() * probabilities.amax(dim=-1, keepdim=True)
    if limits.top_k > 0:
        kept &= scores >= scores.topk(int(limits.top_k), dim=-1).values[:, -1:]
    return int(_by_weight(probabilities.double() * kept, uniform))


def _by_weight(weights: Any, uniform: Any) -> Any:
    """For each row the first place at which its share of the row's weights is passed; none of weight 0."""
    reached = weights.cumsum(dim=-1)
    places = torch.searchsorted(reached, (uniform * reached[:, -1])[:, None], right=True)
    places = places.clamp(max=weights.shape[-1] - 1)
    heaviest = weights.argmax(dim=-1, keepdim=True)  # where rounding has left the end
    return torch.where(weights.gather(1, places) > 0, places, heaviest)[:, 0]
