"""Which sequences are computed together in a step."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from headrace_engines.serving.fatal import is_out_of_memory
from headrace_engines.serving.generator import GenerationFailed, TokenEvent
from headrace_engines.transformers.sequence import Sequence

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What one step gave one sequence."""

    sequence: Sequence
    event: TokenEvent | GenerationFailed


class Batch(ABC):
    """The sequences being computed. Lives in the model's thread; a new batching policy is a new subclass."""

    @abstractmethod
    def __len__(self) -> int:
        """How many sequences are running."""

    @abstractmethod
    def has_room(self) -> bool:
        """Whether another sequence may be added."""

    @abstractmethod
    def add(self, sequence: Sequence) -> None:
        """Take a sequence on; its prompt is computed in the next step."""

    @abstractmethod
    def step(self) -> list[Outcome]:
        """Compute at least one token of some sequences. Those that end, fail or were cancelled leave the batch."""


class InterleavedBatch(Batch):
    """Every sequence on its own, one token each per step, with its own key-value cache.

    Each token is computed exactly as ``generate`` alone would, so greedy answers do not depend on what else runs; the
    price is that no work is shared.

    Args:
        model: A causal language model of transformers.
        max_running: Sequences at once.
    """

    def __init__(self, model: Any, max_running: int) -> None:
        self._model = model
        self._max_running = max_running
        self._running: list[Sequence] = []
        # As `generate` does: logits of the last position only, where the architecture can.
        self._keep_last = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}

    def __len__(self) -> int:
        return len(self._running)

    def has_room(self) -> bool:
        """Whether another sequence may be added."""
        return len(self._running) < self._max_running

    def add(self, sequence: Sequence) -> None:
        """Take a sequence on."""
        self._running.append(sequence)

    def step(self) -> list[Outcome]:
        """One token of each sequence."""
        outcomes = []
        still_running = []
        for sequence in self._running:
            if sequence.cancelled:
                sequence.cache = None
                continue
            event = self._next(sequence)
            outcomes.append(Outcome(sequence, event))
            if isinstance(event, TokenEvent) and event.finish_reason is None:
                still_running.append(sequence)
            else:
                sequence.cache = None
        self._running = still_running
        return outcomes

    def _next(self, sequence: Sequence) -> TokenEvent | GenerationFailed:
        try:
            token_id = sequence.sampler.pick(self._logits(sequence), sequence.token_ids)
        except GenerationFailed as error:
            return error
        except Exception as error:
            _log.exception("A step failed.")
            return _failed(error)
        sequence.token_ids.append(token_id)
        return TokenEvent((token_id,), sequence.finish_reason)

    def _logits(self, sequence: Sequence) -> Any:
        if sequence.cache is None:
            sequence.cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
            new_ids = sequence.token_ids
        else:
            new_ids = sequence.token_ids[-1:]
        output = self._model(
            input_ids=torch.tensor([new_ids], device=self._model.device),
            past_key_values=sequence.cache,
            use_cache=True,
            **self._keep_last,
        )
        return output.logits[:, -1, :].to(torch.float32, copy=True)


def _failed(error: Exception) -> GenerationFailed:
    if is_out_of_memory(error):
        return GenerationFailed("ENGINE_OUT_OF_MEMORY", "The engine ran out of memory while computing this request.")
    return GenerationFailed("ENGINE_DIED", f"The engine failed while computing this request: {type(error).__name__}.")
