"""One sequence being generated, as the model's thread sees it."""

from __future__ import annotations

from headrace_engines.serving.generator import FinishReason, Generation, GenerationRequest
from headrace_engines.transformers.sampler import Sampler


class Sequence:
    """Tokens so far, and how the next one is picked.

    Attributes:
        generation: Where its events go.
        token_ids: Prompt and what was generated.
        prompt_len: Tokens of the prompt.
        sampler: Picks its tokens.
        began_s: When its first computation began, on the monotonic clock; None while it waits.
        cancelled: Set from the event loop's thread; read before each step.
    """

    def __init__(
        self, request: GenerationRequest, generation: Generation, end_ids: frozenset[int], device: str
    ) -> None:
        self.generation = generation
        self.token_ids = list(request.prompt_ids)
        self.prompt_len = len(request.prompt_ids)
        self.sampler = Sampler(request, end_ids, device)
        self.began_s: float | None = None
        self.cancelled = False
        self._max_tokens = request.max_tokens
        self._end_ids = request.stop_token_ids if request.ignore_eos else end_ids | request.stop_token_ids

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.prompt_len

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the last token ends it, if it does."""
        if self.generated and self.token_ids[-1] in self._end_ids:
            return "stop"
        return "length" if self.generated >= self._max_tokens else None
