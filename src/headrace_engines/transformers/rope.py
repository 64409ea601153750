"""Rotary embeddings with two sets of frequencies (longrope), each row with the set of its own length.

Transformers takes the long set for a whole pass as soon as one position of it is beyond the original context, so a
long sequence would turn its company's angles; and a long prompt that is read in pieces would begin with the short set.
Here the row says: it is long when all that it reads now will make it so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

LONGROPE = "longrope"


class RowAngles(torch.nn.Module):  # type: ignore[misc]  # torch is not in this environment
    """A model's rotary embedding, that may be told which rows are long.

    Args:
        rotary: The model's.
        original_len: Tokens of the longest sequence with the short set.
    """

    def __init__(self, rotary: torch.nn.Module, original_len: int) -> None:
        super().__init__()
        self.original_len = original_len
        self._rotary = rotary
        self._long: Any = None

    @contextmanager
    def for_lengths(self, lengths: list[int]) -> Iterator[None]:
        """While this lasts, rows are of these lengths; outside, the longest decides as in transformers."""
        self._long = torch.tensor([[length > self.original_len] for length in lengths])
        try:
            yield
        finally:
            self._long = None

    def forward(self, states: Any, position_ids: Any) -> tuple[Any, Any]:
        """Cosines and sines, of shape (rows, positions, width)."""
        if self._long is None or not self._long.any():
            return self._rotary(states, position_ids)  # type: ignore[no-any-return]  # transformers has no types
        rows = len(self._long)
        # One position more, beyond the original context, makes transformers take the long set.
        beyond = torch.full((rows, 1), self.original_len, device=position_ids.device)
        long = self._rotary(states, torch.cat([position_ids.expand(rows, -1), beyond], dim=1))
        long_cos, long_sin = long[0][:, :-1], long[1][:, :-1]
        if self._long.all():
            return long_cos, long_sin
        is_long = self._long.to(position_ids.device)
        cos, sin = self._rotary(states, position_ids.masked_fill(is_long, 0))
        chosen = is_long[..., None]
        return torch.where(chosen, long_cos, cos), torch.where(chosen, long_sin, sin)


def row_angles(model: Any, config: Any) -> RowAngles | None:
    """The rotary embedding of a model with longrope, replaced; None for every other model."""
    parameters = getattr(config, "rope_parameters", None) or {}
    rotary = getattr(model.base_model, "rotary_emb", None)
    if parameters.get("rope_type") != LONGROPE or rotary is None:
        return None
    model.base_model.rotary_emb = RowAngles(rotary, int(parameters["original_max_position_embeddings"]))
    return model.base_model.rotary_emb  # type: ignore[no-any-return]  # transformers has no types
