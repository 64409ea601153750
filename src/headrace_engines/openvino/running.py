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

from headrace_engines.openvino.kv_cache import BLOCK_TOKENS, blocks_of
from headrace_engines.openvino.messages import Failure, Step
from headrace_engines.openvino.prefixes import Prefixes
from headrace_engines.openvino.reading import room, shares
from headrace_engines.openvino.sampling import generation_config
from headrace_engines.serving.generator import FinishReason, GenerationRequest, TokenEvent, TokenLogprob
from headrace_engines.serving.pace import Pace

_log = logging.getLogger(__name__)

_SAID_MAX_CHARS = 300

_PIECE = genai.GenerationConfig(max_new_tokens=1, ignore_eos=True)
_TRIES = 3
"""How often a sequence is given to GenAI before it fails for want of room."""

_GOING_ON, _DONE = genai.GenerationStatus.RUNNING, genai.GenerationStatus.FINISHED
_FINISH_REASONS: dict[Any, FinishReason | None] = {
    genai.GenerationFinishReason.NONE: None,
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}


class _Computed:
    """One sequence.

    Attributes:
        token_ids: Of the prompt and generated so far.
        handle: GenAI's; the sequence leaves the pipeline when it goes. None until all of the prompt is given to it.
        piece: GenAI's handle of the part of the prompt that it reads, and where that ends.
        read: Tokens of the prompt that are in the cache.
        looked: What the cache's content was called when it was last asked for them.
        begun: Whether any of it was given to GenAI.
        tries: How often GenAI may give it up yet.
        ended: Nothing more is read from it.
    """

    def __init__(self, number: int, request: GenerationRequest, config: genai.GenerationConfig) -> None:
        self.number = number
        self.request = request
        self.config = config
        self.token_ids = list(request.prompt_ids)
        self.handle: Any = None
        self.piece: tuple[Any, int] | None = None
        self.read = 0
        self.looked = -1
        self.begun = False
        self.tries = _TRIES
        self.ended = False

    def end(self) -> None:
        """Leave the pipeline at its next step."""
        if self.handle is not None:
            self.handle.cancel()
        if self.piece is not None:
            self.piece[0].cancel()
        self.ended = True

    def again(self, end_ids: frozenset[int]) -> bool:
        """Begin anew with what was generated so far as part of the prompt; False where that cannot be."""
        done = len(self.token_ids) - len(self.request.prompt_ids)
        self.tries -= 1
        if not self.tries or (done and self.request.grammar is not None):
            return False
        tokens = {"max_tokens": self.request.max_tokens - done, "min_tokens": max(0, self.request.min_tokens - done)}
        self.config = generation_config(msgspec.structs.replace(self.request, **tokens), end_ids)
        self.handle, self.read, self.looked = None, 0, -1
        return True

    def in_cache(self) -> list[int]:
        """Of its tokens, those that were computed: the last one that was generated never is."""
        return self.token_ids[: self.read] if self.handle is None else self.token_ids[:-1]

    def settle(self) -> bool:
        """Take note of what the last step did; False when GenAI has given the sequence up."""
        if self.piece is None:
            return self.ended or self.handle is None or self.handle.get_status() == _GOING_ON
        handle, upto = self.piece
        status = handle.get_status()
        if status != _GOING_ON:
            self.read, self.piece = upto, None
        return self.ended or status in {_GOING_ON, _DONE}


class Running:
    """The pipeline with what it computes.

    GenAI computes as many tokens in a step as one number allows, whoever waits for it. So where its cache keeps what
    prompts begin with, a prompt is given to it in growing parts, each a request of its own that finds the one before
    in the cache; and how much a step reads is decided here, anew for each.

    Args:
        pipeline: A ``ContinuousBatchingPipeline``.
        cache_blocks: Blocks of its key-value cache.
        max_running: Sequences at once.
        end_ids: End-of-sequence tokens.
        prefix_caching: Whether the cache keeps what prompts begin with; else each is given to it whole.
    """

    def __init__(
        self, pipeline: Any, *, cache_blocks: int, max_running: int, end_ids: frozenset[int], prefix_caching: bool
    ) -> None:
        self._pipeline = pipeline
        self._cache_blocks = cache_blocks
        self._max_running = max_running
        self._end_ids = end_ids
        self._prefixes = Prefixes(cache_blocks, BLOCK_TOKENS) if prefix_caching else None
        self._pace = Pace(together=True)
        self._requests = count()
        self._computed: dict[int, _Computed] = {}
        self._refused: list[Failure] = []  # to be told with the next step

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

        What GenAI does not take (it checks a request's settings) fails with the next step, alone.
        """
        try:
            config = generation_config(request, self._end_ids)
            config.validate()
        except Exception as error:
            self._refuse(number, error)
        else:
            self._computed[number] = _Computed(number, request, config)

    def cancel(self, number: int) -> None:
        """Give a sequence up, if it runs."""
        if number in self._computed:
            self._computed[number].end()

    def step(self) -> Step:
        """Compute at most one token of each sequence. Those that end, fail or were cancelled leave the pipeline."""
        began_s = time.monotonic()
        decoding = sum(computed.handle is not None for computed in self._computed.values())
        begin, tokens = self._read_on(decoding)
        began = [(number, began_s) for number in begin]
        if self._computed:
            self._pipeline.step()
            self._learn(tokens, decoding, time.monotonic() - began_s)
        events: list[tuple[int, TokenEvent]] = []
        failures, self._refused = self._refused, []
        for computed in list(self._computed.values()):
            events += [(computed.number, event) for event in self._events(computed)]
            if not computed.settle() and not computed.again(self._end_ids):
                computed.ended = True
                message = "The key-value cache has no room for this request."
                failures.append(Failure(computed.number, "ENGINE_OUT_OF_MEMORY", message))
            if computed.ended:
                del self._computed[computed.number]
                self._keep(computed.in_cache())
        # What is kept of earlier prompts counts as free.
        cache_used = min(1.0, self._blocks() / self._cache_blocks)
        return Step(events, failures, len(self._computed), cache_used, began)

    def _learn(self, tokens: int, decoding: int, seconds: float) -> None:
        if tokens >= BLOCK_TOKENS:  # of fewer, a step's time tells nothing
            self._pace.read(tokens, seconds)
        elif decoding and not tokens:
            self._pace.decoded(seconds)

    def _read_on(self, decoding: int) -> tuple[list[int], int]:
        """Give the pipeline as much of the prompts as a step may read.

        Args:
            decoding: Sequences that wait for their next token meanwhile.

        Returns:
            Those that begin with it, and how many tokens of all were given.
        """
        waiting = [computed for computed in self._computed.values() if computed.handle is None and not computed.ended]
        if not waiting or any(computed.piece is not None for computed in waiting):
            # A piece takes more than a step where what it begins with had to be computed again.
            return [], 0
        readable = self._fitting(waiting)
        unread = [self._unread(computed) for computed in readable]
        if self._prefixes is None:
            given = unread
        else:
            given = shares(unread, room(self._pace, len(waiting), decoding), BLOCK_TOKENS)
        begin = []
        for computed, tokens, left in zip(readable, given, unread, strict=True):
            if not tokens:
                continue
            if not computed.begun:
                computed.begun = True
                begin.append(computed.number)
            self._give(computed, None if tokens == left else computed.read + tokens)
        return begin, sum(given)

    def _give(self, computed: _Computed, upto: int | None) -> None:
        """Give the pipeline a prompt's piece up to a token, or with None its rest."""
        prompt = computed.token_ids
        if upto is not None:
            computed.piece = self._add(prompt[:upto], _PIECE), upto
            return
        try:
            computed.handle = self._add(prompt, computed.config)
        except Exception as error:
            del self._computed[computed.number]
            self._refuse(computed.number, error)
        else:
            self._keep(prompt)

    def _fitting(self, waiting: list[_Computed]) -> list[_Computed]:
        """Of the prompts, the oldest that have room beside what the pipeline has, which grew since they were taken on.

        Where the pipeline has nothing the first of them has it.
        """
        blocks = sum(blocks_of(len(each.token_ids) + 1) for each in self._computed.values() if each.handle is not None)
        fitting: list[_Computed] = []
        for computed in waiting:
            alone, blocks = not blocks, blocks + blocks_of(len(computed.token_ids) + 1)
            if not alone and blocks > self._cache_blocks:
                break
            fitting.append(computed)
        return fitting

    def _unread(self, computed: _Computed) -> int:
        """Tokens of its prompt that have to be computed: of one that is all in the cache, the last."""
        if self._prefixes is not None and computed.looked != self._prefixes.changes:
            computed.looked = self._prefixes.changes
            computed.read = max(computed.read, self._prefixes.kept(computed.token_ids))
        return max(1, len(computed.token_ids) - computed.read)

    def _add(self, token_ids: list[int], config: genai.GenerationConfig) -> Any:
        return self._pipeline.add_request(
            next(self._requests), ov.Tensor(np.array([token_ids], dtype=np.int64)), config
        )

    def _refuse(self, number: int, error: Exception) -> None:
        _log.warning("GenAI does not take a request.", exc_info=error)
        said = str(error).strip().splitlines() or [type(error).__name__]
        message = f"OpenVINO does not take these sampling parameters: {said[0][:_SAID_MAX_CHARS]}"
        self._refused.append(Failure(number, "SAMPLING_IMPOSSIBLE", message))

    def _keep(self, token_ids: list[int]) -> None:
        if self._prefixes is not None:
            self._prefixes.keep(token_ids)

    def _blocks(self) -> int:
        return sum(blocks_of(len(computed.token_ids) + 1) for computed in self._computed.values())

    def _events(self, computed: _Computed) -> Iterator[TokenEvent]:
        while not computed.ended and computed.handle is not None and computed.handle.can_read():
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
