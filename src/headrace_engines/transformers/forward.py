"""One pass through the model, for rows of several sequences."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence as SequenceOf
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from headrace_engines.transformers.padded_cache import (
    UNBOUNDED,
    Part,
    can_be_merged,
    has_recurrent_state,
    merged,
    with_growth,
    with_room,
)
from headrace_engines.transformers.rope import row_angles
from headrace_engines.transformers.sequence import Sequence
from headrace_engines.transformers.sharing import is_own_class, may_share


class Abilities(NamedTuple):
    """What a model's passes may do.

    Attributes:
        shares: Several sequences at once, and a cache that rows join and leave; else one sequence a pass.
        chunks: A prompt in pieces.
        pads: Prompts of several lengths at once.
    """

    shares: bool
    chunks: bool
    pads: bool


class Forward(ABC):
    """How a kind of model is run. A state is what it keeps of the rows between passes.

    Attributes:
        abilities: What its passes may do.
        rereads_beyond: A sequence that grows beyond so many tokens is read anew, from its first on; None for never.
        most_columns: Tokens of the longest sequence that there may be.
    """

    abilities: Abilities
    most_columns: int = UNBOUNDED
    rereads_beyond: int | None = None

    @abstractmethod
    def token_ids(self, sequence: Sequence) -> list[int]:
        """The tokens that the passes of a sequence read, from the first on."""

    def encoded_len(self, _sequence: Sequence) -> int:
        """Tokens that are kept of a sequence beside those that its passes read: an encoder's."""
        return 0

    def with_growth(self, columns: int) -> int:
        """Columns that a block of rows has room for, once it holds so many."""
        return with_growth(columns, self.most_columns)

    @abstractmethod
    def start(self, prompts: list[list[int]]) -> Any:
        """The state of sequences of which nothing was read yet, by their prompts."""

    @abstractmethod
    def merged(self, parts: SequenceOf[Part]) -> Any:
        """One state with the rows of all parts, in order. The parts' own states are used up."""

    @abstractmethod
    def run(self, state: Any, token_ids: list[list[int]], lengths: list[int], final_lengths: list[int]) -> Any:
        """Logits after each row's last token, of shape (rows, vocabulary); the state takes the new tokens in.

        Args:
            state: Of as many rows.
            token_ids: New tokens of each row. They may differ in number only while nothing was read yet.
            lengths: Tokens of each row so far, the new ones included.
            final_lengths: The same, once the pieces are read that follow.
        """

    @abstractmethod
    def cache_of(self, state: Any) -> Any:
        """The cache of transformers' in a state; None where there is none."""


class CausalForward(Forward):
    """Passes of a decoder-only model.

    Args:
        model: A causal language model of transformers.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._config = model.config.get_text_config(decoder=True)
        parameters = inspect.signature(model.forward).parameters
        self._cache_name = next((name for name in ("past_key_values", "cache_params") if name in parameters), None)
        self._takes_positions = "position_ids" in parameters
        # As `generate` does: logits of the last position only, where the architecture can.
        self._keep_last = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        cache = DynamicCache(config=self._config)
        known = may_share(self._config) and not is_own_class(model)
        shares = self._cache_name is not None and known and can_be_merged(cache)
        chunks = shares and not has_recurrent_state(cache)
        self.abilities = Abilities(shares=shares, chunks=chunks, pads=shares)
        self._angles = row_angles(model, self._config) if shares else None
        # As `generate` does for these models: keys that were turned by the short set are of no use to the long one.
        self.rereads_beyond = None if self._angles is None else self._angles.original_len

    def token_ids(self, sequence: Sequence) -> list[int]:
        """Prompt and answer."""
        return sequence.token_ids

    def start(self, prompts: list[list[int]]) -> Any:
        """An empty cache; None for a model that has none and reads the whole sequence each time."""
        if self._cache_name is None:
            return None
        cache = DynamicCache(config=self._config)
        return with_room(cache, max(map(len, prompts))) if self.abilities.chunks else cache

    def merged(self, parts: SequenceOf[Part]) -> Any:
        """One cache for all."""
        return merged(parts, self.most_columns)

    def run(self, state: Any, token_ids: list[list[int]], lengths: list[int], final_lengths: list[int]) -> Any:
        """Logits after each row's last token."""
        new = max(len(row) for row in token_ids)
        columns = new if state is None else columns_of(state) + new
        device = self._model.device
        arguments: dict[str, Any] = {
            "input_ids": padded_at_begin(token_ids, device),
            "use_cache": state is not None,
            **self._keep_last,
        }
        if self._cache_name is not None:
            arguments[self._cache_name] = state
        ends = torch.tensor(lengths, device=device)[:, None]
        if min(lengths) < columns:
            arguments["attention_mask"] = mask_of_ends(ends, columns)
        if self._takes_positions:
            arguments["position_ids"] = (ends - new + torch.arange(new, device=device)).clamp(min=0)
        with self._angles.for_lengths(final_lengths) if self._angles else nullcontext():
            return self._model(**arguments).logits[:, -1, :]

    def cache_of(self, state: Any) -> Any:
        """The state itself."""
        return state


PROBE_TOKENS = 2


def probe(forward: Forward) -> Any:
    """Compute something tiny: the cache that `PROBE_TOKENS` tokens of one sequence leave behind.

    Raises:
        Exception: Whatever keeps the model from computing anything.
    """
    token_ids = [0] * PROBE_TOKENS
    with torch.inference_mode():
        state = forward.start([token_ids])
        forward.run(state, [token_ids], [PROBE_TOKENS], [PROBE_TOKENS])
    return forward.cache_of(state)


def columns_of(cache: Any) -> int:
    """Columns so far; 0 where every layer keeps a state instead."""
    return int(cache.get_seq_length()) if any(hasattr(layer, "get_seq_length") for layer in cache.layers) else 0


def padded_at_begin(rows: list[list[int]], device: Any) -> Any:
    """Token ids of unequal rows, aligned at their ends."""
    new = max(len(row) for row in rows)
    return torch.tensor([[0] * (new - len(row)) + row for row in rows], device=device)


def mask_of_ends(lengths: Any, columns: int) -> Any:
    """An attention mask that shows so many of each row's last columns.

    Args:
        lengths: Of shape (rows, 1).
        columns: Of the whole cache.
    """
    return (torch.arange(columns, device=lengths.device) >= columns - lengths).long()
