"""A key-value cache of several sequences in one block of memory, as transformers' models take it.

Rows are aligned at their ends, as ``generate`` pads prompts: every sequence's newest token stands in the last column,
and a shorter sequence begins with columns that the attention mask hides. So one forward pass computes the next token
of all rows, whatever their lengths::

    column      0   1   2   3   4   5
    row 0       .   .   .   a   b   c
    row 1       d   e   f   g   h   i
    row 2       .   j   k   l   m   n

What a sequence leaves is copied out of, not marked as free: after `merged`, no memory of a row that was left out
remains.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import (
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

GROWTH_COLUMNS = 64
"""Columns that are added when a block is full: it is copied once in so many tokens, and at most so many are empty."""

UNBOUNDED = sys.maxsize
"""The most columns of a cache whose sequences may become as long as they like."""


def with_growth(columns: int, most: int) -> int:
    """Columns of a block that holds so many: with room to grow, but for no more than the longest sequence has."""
    return min(columns + GROWTH_COLUMNS, max(columns, most))


class PaddedLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """One layer's keys and values, written in place.

    Args:
        key_block: Keys, of shape (rows, heads, capacity in columns, width).
        value_block: The same for values; their width may be another.
        filled: Columns of the blocks that hold something.
        columns: Columns of the whole cache; a sliding window keeps fewer.
        window: Tokens that a token attends to, itself included; None for all.
        most: Columns of the longest sequence that there may be.
    """

    def __init__(
        self,
        key_block: Any,
        value_block: Any,
        *,
        filled: int,
        columns: int,
        window: int | None,
        most: int = UNBOUNDED,
    ) -> None:
        super().__init__()
        self.is_sliding = window is not None
        self.is_initialized = True
        self.dtype, self.device = key_block.dtype, key_block.device
        self.window = window
        self._most = most
        self._columns = columns
        self._first_capacity = 0
        self._begin, self._end = 0, filled
        self._key_block, self._value_block = key_block, value_block
        self._show()

    @classmethod
    def unread(cls, columns: int, window: int | None) -> PaddedLayer:
        """A layer of nothing yet, whose blocks will have room for so many columns from the first on."""
        nothing = torch.empty((0, 0, 0, 0))
        layer = cls(nothing, nothing, filled=0, columns=0, window=window)
        layer._first_capacity = columns if window is None else min(columns, window + GROWTH_COLUMNS)
        return layer

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Add columns; what the new tokens attend to."""
        added = key_states.shape[-2]
        if not self._end:
            self.dtype, self.device = key_states.dtype, key_states.device
            self._key_block = _room_for(key_states, self._first_capacity)
            self._value_block = _room_for(value_states, self._first_capacity)
        elif self._end + added > self._key_block.shape[-2]:
            self._key_block = _roomier(self.keys, added, self._most)
            self._value_block = _roomier(self.values, added, self._most)
            self._begin, self._end = 0, self._end - self._begin
        self._key_block[:, :, self._end : self._end + added] = key_states
        self._value_block[:, :, self._end : self._end + added] = value_states
        self._end += added
        self._columns += added
        self._show()
        seen = self.keys, self.values
        if self.window is not None:
            self._begin = max(self._begin, self._end - self.window + 1)
            self._show()
        return seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a query of this length attends over, and the number of the first."""
        kept = self._end - self._begin
        return kept + query_length, self._columns - kept

    def get_seq_length(self) -> int:
        """Columns so far, those that a window has left behind included."""
        return self._columns

    def _show(self) -> None:
        self.keys = self._key_block[:, :, self._begin : self._end]
        self.values = self._value_block[:, :, self._begin : self._end]


class Part(NamedTuple):
    """Some rows of a state.

    Attributes:
        state: What a `Forward` keeps; for the functions here a cache of transformers' own, or one that they made.
        rows: Which rows.
        lengths: Tokens of each.
    """

    state: Any
    rows: list[int]
    lengths: list[int]


def can_be_merged(cache: Any) -> bool:
    """Whether `merged` knows every layer of a cache. It knows a type, not its subclasses: those may keep more."""
    return type(cache) is DynamicCache and all(type(layer) in _KNOWN_LAYERS for layer in cache.layers)


def has_recurrent_state(cache: Any) -> bool:
    """Whether a layer keeps a state that is not one of single tokens."""
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers)


def with_room(cache: Any, columns: int) -> Any:
    """An empty cache of known layers, as one that takes so many columns in place.

    transformers' own layers are copied whole for every piece of a prompt that is added: slow, and the blocks that it
    leaves behind, each a little larger than the last, are holes in the heap that the next prompts cannot use.
    """
    cache.layers = [_unread(layer, columns) for layer in cache.layers]
    return cache


def _unread(layer: Any, columns: int) -> Any:
    if type(layer) in {DynamicLayer, DynamicSlidingWindowLayer}:
        return PaddedLayer.unread(columns, getattr(layer, "sliding_window", None))
    return layer


def merged(parts: Sequence[Part], most: int = UNBOUNDED) -> Any:
    """One cache with the rows of all parts, in order. The parts' own caches are used up.

    Args:
        parts: At least one.
        most: Columns of the longest sequence that there may be: its block gets no room for more.
    """
    columns = max(length for part in parts for length in part.lengths)
    cache = copy.copy(parts[0].state)
    cache.layers = [_merged_layer(parts, number, columns, most) for number in range(len(cache.layers))]
    return cache


def merged_at_begin(parts: Sequence[Part]) -> Any:
    """As `merged`, for what does not grow: rows are aligned at their beginnings, and what is masked follows them."""
    columns = max(length for part in parts for length in part.lengths)
    cache = copy.copy(parts[0].state)
    cache.layers = [_merged_layer_at_begin(parts, number, columns) for number in range(len(cache.layers))]
    return cache


def cache_bytes(cache: Any) -> int:
    """Memory that a cache holds, room to grow included."""
    if isinstance(cache, EncoderDecoderCache):
        return cache_bytes(cache.self_attention_cache) + cache_bytes(cache.cross_attention_cache)
    return sum(tensor.untyped_storage().nbytes() for layer in cache.layers for tensor in _tensors(layer))


def _tensors(layer: Any) -> Iterable[Any]:
    for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
        if tensor is not None:
            yield tensor
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        for states in (layer.conv_states, layer.recurrent_states):
            yield from (state for state in states.values() if state is not None)


def _merged_layer(parts: Sequence[Part], number: int, columns: int, most: int) -> Any:
    """One layer of all parts. Theirs are dropped as soon as they are copied: the peak is one layer more."""
    layers = [part.state.layers[number] for part in parts]
    rows = [part.rows for part in parts]
    first = layers[0]
    if isinstance(first, LinearAttentionLayer):
        layer = _merged_states(layers, rows)
    elif isinstance(first, DynamicLayer):
        window = first.window if isinstance(first, PaddedLayer) else getattr(first, "sliding_window", None)
        filled = columns if window is None else min(columns, window - 1)
        layer = PaddedLayer(
            _aligned([each.keys for each in layers], rows, filled, most),
            _aligned([each.values for each in layers], rows, filled, most),
            filled=filled,
            columns=columns,
            window=window,
            most=most,
        )
    else:
        layer = first  # keeps nothing
    return _replaced(parts, number, layer)


def _merged_layer_at_begin(parts: Sequence[Part], number: int, columns: int) -> Any:
    layer = copy.copy(parts[0].state.layers[number])
    layers = [part.state.layers[number] for part in parts]
    layer.keys = _aligned_at_begin([each.keys for each in layers], parts, columns)
    layer.values = _aligned_at_begin([each.values for each in layers], parts, columns)
    return _replaced(parts, number, layer)


def _replaced(parts: Sequence[Part], number: int, layer: Any) -> Any:
    for part in parts:
        part.state.layers[number] = layer
    return layer


def _merged_states(layers: list[Any], rows: list[list[int]]) -> Any:
    merged_layer = copy.copy(layers[0])
    for name in ("conv_states", "recurrent_states"):
        states = {
            index: None
            if state is None
            else torch.cat([getattr(layer, name)[index][chosen] for layer, chosen in zip(layers, rows, strict=True)])
            for index, state in getattr(layers[0], name).items()
        }
        setattr(merged_layer, name, states)
    return merged_layer


def _aligned(blocks: list[Any], rows: list[list[int]], filled: int, most: int) -> Any:
    """A block of these rows' last columns, with room to grow.

    What a row does not have is zero, never left as found: a masked column counts nothing times what stands in it, and
    nothing times NaN is NaN. The room to grow is left as found, for it is written before it is shown.
    """
    _, heads, _, width = blocks[0].shape
    target = blocks[0].new_empty((sum(len(chosen) for chosen in rows), heads, with_growth(filled, most), width))
    row = 0
    for block, chosen in zip(blocks, rows, strict=True):
        taken = min(filled, block.shape[-2])
        target[row : row + len(chosen), :, : filled - taken] = 0
        for first, count in _runs(chosen):  # a slice is copied once, rows by their numbers twice and slowly
            kept = block[first : first + count, :, block.shape[-2] - taken :]
            target[row : row + count, :, filled - taken : filled] = kept
            row += count
    return target


def _room_for(states: Any, columns: int) -> Any:
    rows, heads, new, width = states.shape
    return states.new_empty((rows, heads, max(new, columns), width))


def _runs(numbers: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Numbers that follow each other, as the first of them and how many."""
    begin = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            yield numbers[begin], place - begin
            begin = place


def _aligned_at_begin(blocks: list[Any], parts: Sequence[Part], columns: int) -> Any:
    """These rows' first columns; zero is what a row does not have, for the reason that `_aligned` gives."""
    _, heads, _, width = blocks[0].shape
    target = blocks[0].new_zeros((sum(len(part.rows) for part in parts), heads, columns, width))
    row = 0
    for block, part in zip(blocks, parts, strict=True):
        for chosen, length in zip(part.rows, part.lengths, strict=True):
            target[row, :, :length] = block[chosen, :, :length]
            row += 1
    return target


def _roomier(shown: Any, added: int, most: int) -> Any:
    rows, heads, columns, width = shown.shape
    block = shown.new_empty((rows, heads, max(columns + added, with_growth(columns + added - 1, most)), width))
    block[:, :, :columns] = shown
    return block


_KNOWN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer, DummyLayer, PaddedLayer)
