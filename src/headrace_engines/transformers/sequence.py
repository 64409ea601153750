"""One sequence being generated, as the model's thread sees it."""

from __future__ import annotations

from typing import Any

from headrace_engines.serving.generator import FinishReason, Generation, GenerationRequest
from headrace_engines.transformers.sampler import Sampler


class Sequence:
    """Tokens so far, and what computing the next one needs.

    Attributes:
        generation: Where its events go.
        token_ids: Prompt and what was generated.
        cache: Keys and values of every token but the last; None before the first step.
        cancelled: Set from the event loop's thread; read before each step.
    """

    def __init__(
        self, request: GenerationRequest, generation: Generation, sampler: Sampler, end_ids: frozenset[int]
    ) -> None:
        self.generation = generation
        self.token_ids = list(request.prompt_ids)
        self.sampler = sampler
        self.cache: Any = None
        self.cancelled = False
        self._prompt_len = len(request.prompt_ids)
        self._max_tokens = request.max_tokens
        self._end_ids = frozenset() if request.ignore_eos else end_ids

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self._prompt_len

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the last token ends it, if it does."""
        if self.generated and self.token_ids[-1] in self._end_ids:
            return "stop"
        return "length" if self.generated >= self._max_tokens else None
