"""Sequences that are computed in one pass, and the cache they share."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any

from headrace_engines.transformers.cache_cost import CacheCost
from headrace_engines.transformers.forward import Forward
from headrace_engines.transformers.padded_cache import Part
from headrace_engines.transformers.sequence import Sequence


class Group:
    """Rows of one state.

    Attributes:
        sequences: Whose rows they are, in order.
        room: Columns that the cache can take before it has to grow.
    """

    def __init__(self, forward: Forward, sequences: list[Sequence], state: Any, lengths: list[int]) -> None:
        self.sequences = sequences
        self._forward = forward
        self._state = state
        self._lengths = lengths
        self.room = self.columns
        if forward.abilities.shares:
            self.regroup(range(len(sequences)))

    @property
    def rows(self) -> int:
        """How many sequences."""
        return len(self.sequences)

    @property
    def columns(self) -> int:
        """Tokens of the longest."""
        return max(self._lengths, default=0)

    @property
    def encoded_columns(self) -> int:
        """Tokens of the longest that an encoder read."""
        return max(map(self._forward.encoded_len, self.sequences), default=0)

    @property
    def tokens(self) -> int:
        """Tokens of all, an encoder's included, without padding."""
        return sum(self._lengths) + sum(map(self._forward.encoded_len, self.sequences))

    @property
    def room_after_step(self) -> int:
        """As `room`, once one more token of each was computed."""
        if not self._forward.abilities.shares:
            return self.columns + 1
        return self.room if self.columns < self.room else max(self.columns + 1, self._forward.with_growth(self.columns))

    def held_bytes(self, cost: CacheCost) -> int:
        """What it holds, room to grow included."""
        return cost.block_bytes(self.rows, self.room, self.encoded_columns)

    def bytes_after_step(self, cost: CacheCost) -> int:
        """What it holds once one more token of each was computed."""
        return cost.block_bytes(self.rows, self.room_after_step, self.encoded_columns)

    @property
    def to_be_reread(self) -> list[Sequence]:
        """Those whose next token makes them too long for what was read of them."""
        limit = self._forward.rereads_beyond
        return [one for one, length in zip(self.sequences, self._lengths, strict=True) if length == limit]

    def step(self) -> Any:
        """Logits of every row's next token."""
        self.room = self.room_after_step
        self._lengths = [length + 1 for length in self._lengths]
        last = [self._forward.token_ids(sequence)[-1:] for sequence in self.sequences]
        return self._forward.run(self._state, last, self._lengths, self._lengths)

    def regroup(self, kept: SequenceOf[int], joining: Group | None = None) -> None:
        """Keep these rows only, and take those of another group on. What is left out gives its memory back."""
        parts = [_part(self, kept)] if len(kept) else []
        if joining is not None:
            parts.append(_part(joining, range(joining.rows)))
        arrived = ([], []) if joining is None else (joining.sequences, joining._lengths)
        self.sequences = [self.sequences[row] for row in kept] + arrived[0]
        self._lengths = [self._lengths[row] for row in kept] + arrived[1]
        if self.sequences and (self._forward.abilities.shares or joining is not None):
            self._state = self._forward.merged(parts)
            self.room = self._forward.with_growth(self.columns)
        elif not self.sequences:
            self._state = None


def _part(group: Group, rows: SequenceOf[int]) -> Part:
    return Part(group._state, list(rows), [group._lengths[row] for row in rows])
