"""From a sequence of tokens to the text of an answer: whole characters, stop strings, counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from headrace_engines.serving.codec import TextCodec
from headrace_engines.serving.detokenise import IncrementalDetokeniser, StopScanner
from headrace_engines.serving.generator import FinishReason, Generation, GenerationFailed, TokenEvent
from headrace_engines.serving.metrics import EndReason, RequestMeter

# vLLM's INITIAL_INCREMENTAL_DETOKENIZATION_OFFSET: enough of the prompt to know whether a space comes first.
_CONTEXT_TOKENS = 5


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of an answer.

    Attributes:
        text: May be empty, while a character or a stop string is undecided.
        finish_reason: Set on the last piece.
    """

    text: str
    finish_reason: FinishReason | None = None


class TextStream:
    """The text of one generation, to be iterated once. It ends without a finish reason only when it was cancelled.

    Args:
        generation: Where tokens come from; cancelled when a stop string ends the text early.
        codec: Decodes them.
        prompt_ids: The prompt: its last tokens are the context of the first piece.
        stops: Stop strings.
        min_tokens: Stop strings count only in what comes after this many tokens.
        meter: Counts and times.
    """

    def __init__(
        self,
        generation: Generation,
        codec: TextCodec,
        *,
        prompt_ids: Sequence[int],
        stops: Sequence[str],
        min_tokens: int,
        meter: RequestMeter,
    ) -> None:
        self.prompt_tokens = len(prompt_ids)
        self.completion_tokens = 0
        self._generation = generation
        self._detokeniser = IncrementalDetokeniser(codec.decode, prompt_ids[-_CONTEXT_TOKENS:])
        self._scanner = StopScanner(stops)
        self._min_tokens = min_tokens
        self._meter = meter
        self._metered = False

    async def __aiter__(self) -> AsyncIterator[TextDelta]:
        try:
            async for event in self._generation:
                before = self.completion_tokens
                delta = self._delta(event)
                self._meter.tokens(self.completion_tokens - before)
                if delta.finish_reason is not None:
                    self._generation.cancel()
                    self._end(delta.finish_reason)
                yield delta
                if delta.finish_reason is not None:
                    return
        except GenerationFailed:
            self._end("error")
            raise

    def cancel(self) -> None:
        """Give the sequence up, unless it has ended."""
        self._generation.cancel()
        self._end("abort")

    def _end(self, reason: EndReason) -> None:
        if not self._metered:
            self._metered = True
            self._meter.ended(reason)

    def _delta(self, event: TokenEvent) -> TextDelta:
        pieces = []
        last = len(event.token_ids) - 1
        for index, token_id in enumerate(event.token_ids):
            self.completion_tokens += 1
            if event.finish_reason == "stop" and index == last:
                break  # the end-of-sequence token is counted and not shown
            pieces.append(self._scan(self._detokeniser.push(token_id)))
            if self._scanner.hit:
                return TextDelta("".join(pieces), "stop")
        if event.finish_reason is not None:
            pieces.append(self._scan(self._detokeniser.flush()))
            if self._scanner.hit:
                return TextDelta("".join(pieces), "stop")
            pieces.append(self._scanner.flush())
        return TextDelta("".join(pieces), event.finish_reason)

    def _scan(self, piece: str) -> str:
        return piece if self.completion_tokens <= self._min_tokens else self._scanner.push(piece)
