"""The sequences in the pipeline, and what each of its steps gives them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import numpy as np
import openvino as ov
import openvino_genai as genai  # type: ignore[import-not-found]  # in the engine's environment only

from headrace_engines.openvino.kv_cache import blocks_of
from headrace_engines.openvino.messages import Failure, Step
from headrace_engines.openvino.sampling import generation_config
from headrace_engines.serving.generator import FinishReason, GenerationRequest, TokenEvent, TokenLogprob

_log = logging.getLogger(__name__)

_SAID_MAX_CHARS = 300

_TRIES = 3
"""How often a sequence is given to GenAI before it fails for want of room."""

_GOING_ON = genai.GenerationStatus.RUNNING
_FINISH_REASONS: dict[Any, FinishReason | None] = {
    genai.GenerationFinishReason.NONE: None,
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}


class _Computed:
    """One sequence in the pipeline.

    Attributes:
        handle: GenAI's; the sequence leaves the pipeline when it goes.
        token_ids: Of the prompt and generated so far.
        tries: How often GenAI may give it up yet.
        ended: Nothing more is read from it.
    """

    def __init__(self, number: int, request: GenerationRequest, handle: Any) -> None:
        self.number = number
        self.request = request
        self.handle = handle
        self.token_ids = list(request.prompt_ids)
        self.tries = _TRIES
        self.ended = False

    def end(self) -> None:
        """Leave the pipeline at its next step."""
        self.handle.cancel()
        self.ended = True

    @property
    def rest(self) -> GenerationRequest | None:
        """What is left to ask for, with what was generated as part of the prompt; None where that cannot be told."""
        done = len(self.token_ids) - len(self.request.prompt_ids)
        if done and self.request.grammar is not None:  # GenAI would begin it anew, in the midst of the text
            return None
        return msgspec.structs.replace(
            self.request,
            prompt_ids=self.token_ids,
            max_tokens=self.request.max_tokens - done,
            min_tokens=max(0, self.request.min_tokens - done),
        )


class Running:
    """The pipeline with what it computes.

    Args:
        pipeline: A ``ContinuousBatchingPipeline``.
        cache_blocks: Blocks of its key-value cache.
        max_running: Sequences at once.
        end_ids: End-of-sequence tokens.
    """

    def __init__(self, pipeline: Any, *, cache_blocks: int, max_running: int, end_ids: frozenset[int]) -> None:
        self._pipeline = pipeline
        self._cache_blocks = cache_blocks
        self._max_running = max_running
        self._end_ids = end_ids
        self._requests = count()
        self._computed: dict[int, _Computed] = {}
        self._refused: list[Failure] = []  # to be told with the next step
        self._added: list[int] = []  # since the last step

    def __len__(self) -> int:
        """How many sequences a step has something to say of."""
        return len(self._computed) + len(self._refused)

    def has_room(self, request: GenerationRequest) -> bool:
        """Whether a sequence fits beside what runs, as far as it has come.

        GenAI takes the cache away from the newest sequences when older ones grow, and computes theirs again later.
        But prompts of which none finds the blocks for its next piece would be given up, all of them: so each is let
        in only when all of it fits.
        """
        if len(self._computed) >= self._max_running:
            return False
        return self._blocks() + blocks_of(len(request.prompt_ids) + 1) <= self._cache_blocks

    def add(self, number: int, request: GenerationRequest) -> None:
        """Take a sequence on; its prompt is computed from the next step on.

        What GenAI does not take (it checks a request's settings here) fails with the next step, alone.
        """
        try:
            handle = self._submit(request)
        except Exception as error:
            _log.warning("GenAI does not take a request.", exc_info=True)
            said = str(error).strip().splitlines() or [type(error).__name__]
            message = f"OpenVINO does not take these sampling parameters: {said[0][:_SAID_MAX_CHARS]}"
            self._refused.append(Failure(number, "SAMPLING_IMPOSSIBLE", message))
        else:
            self._computed[number] = _Computed(number, request, handle)
            self._added.append(number)

    def cancel(self, number: int) -> None:
        """Give a sequence up, if it runs."""
        if number in self._computed:
            self._computed[number].end()

    def step(self) -> Step:
        """Compute at most one token of each sequence. Those that end, fail or were cancelled leave the pipeline."""
        began_s = time.monotonic()
        began, self._added = [(number, began_s) for number in self._added], []
        if self._computed:
            self._pipeline.step()
        events: list[tuple[int, TokenEvent]] = []
        failures, self._refused = self._refused, []
        for computed in list(self._computed.values()):
            events += [(computed.number, event) for event in self._events(computed)]
            if self._given_up(computed) and not self._begin_anew(computed):
                computed.ended = True
                message = "The key-value cache has no room for this request."
                failures.append(Failure(computed.number, "ENGINE_OUT_OF_MEMORY", message))
            if computed.ended:
                del self._computed[computed.number]
        # What is kept of earlier prompts counts as free.
        cache_used = min(1.0, self._blocks() / self._cache_blocks)
        return Step(events, failures, len(self._computed), cache_used, began)

    def _submit(self, request: GenerationRequest) -> Any:
        prompt = ov.Tensor(np.array([request.prompt_ids], dtype=np.int64))
        return self._pipeline.add_request(next(self._requests), prompt, generation_config(request, self._end_ids))

    def _given_up(self, computed: _Computed) -> bool:
        return not computed.ended and computed.handle.get_status() != _GOING_ON

    def _begin_anew(self, computed: _Computed) -> bool:
        """Give GenAI a sequence once more that it gave up; False where that was done often enough, or cannot be.

        It gives up everybody when a step schedules nothing: when all that are left wait for a block, while a cancelled
        one still holds some. That one is gone with the next step.
        """
        computed.tries -= 1
        if not computed.tries or (rest := computed.rest) is None:
            return False
        computed.handle = self._submit(rest)
        return True

    def _blocks(self) -> int:
        return sum(blocks_of(len(computed.token_ids) + 1) for computed in self._computed.values())

    def _events(self, computed: _Computed) -> Iterator[TokenEvent]:
        while not computed.ended and computed.handle.can_read():
            for output in computed.handle.read().values():
                yield _event(computed, output)


def _event(computed: _Computed, output: Any) -> TokenEvent:
    token_ids = tuple(output.generated_ids)
    computed.token_ids += token_ids
    finish_reason = _FINISH_REASONS[output.finish_reason]
    computed.ended = finish_reason is not None
    if token_ids and token_ids[-1] in computed.request.stop_token_ids:
        finish_reason = "stop"  # GenAI itself goes on where the end is ignored, and within grammars
        computed.end()
    logprobs: tuple[TokenLogprob, ...] = ()
    if computed.request.top_logprobs is not None:
        logprobs = tuple(TokenLogprob(logprob) for logprob in output.generated_log_probs)
    return TokenEvent(token_ids, finish_reason, logprobs)
