"""The sequences of one request, read together by one task."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from headrace_engines.serving.generator import Generation, GenerationFailed
from headrace_engines.serving.metrics import EndReason, RequestMeter
from headrace_engines.serving.text import TextDelta, TextReader


class RunningSequence(NamedTuple):
    """One sequence on its way.

    Attributes:
        generation: Where its tokens come from.
        reader: Makes text of them.
        meter: Counts and times.
    """

    generation: Generation
    reader: TextReader
    meter: RequestMeter


class Sequences:
    """Waits for all sequences at once: whatever was delivered by then is one wake-up and one piece of text each.

    Args:
        running: The sequences, in the order of the answer's choices.
    """

    def __init__(self, running: Sequence[RunningSequence]) -> None:
        self._running = running
        self._open = set(range(len(running)))
        self._ready: dict[int, None] = {}  # in the order of delivery, each once
        self._waiter: asyncio.Future[None] | None = None
        for index, sequence in enumerate(running):
            sequence.generation.when_delivered(lambda index=index: self._delivered(index))  # type: ignore[misc] # the default binds the loop's variable

    async def next(self) -> list[tuple[int, TextDelta]]:
        """New pieces, each with its sequence's index; an empty list once all have ended or were cancelled.

        Raises:
            GenerationFailed: One of them failed; the others are cancelled.
        """
        deltas: list[tuple[int, TextDelta]] = []
        while self._open and not deltas:
            if not self._ready:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            ready, self._ready = self._ready, {}
            deltas = [
                (index, delta) for index in ready if index in self._open and (delta := self._read(index)) is not None
            ]
        return deltas

    def end(self, index: int) -> None:
        """Stop one sequence that has said enough."""
        self._close(index, "stop")

    def cancel(self) -> None:
        """Give up every sequence that has not ended."""
        for index in tuple(self._open):
            self._close(index, "abort")
        self._wake()

    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far, of all sequences."""
        return sum(each.reader.completion_tokens for each in self._running)

    def _read(self, index: int) -> TextDelta | None:
        generation, reader, meter = self._running[index]
        try:
            events = generation.take()
        except GenerationFailed:
            self._close(index, "error")
            self.cancel()
            raise
        if not events:
            if generation.ended:
                self._close(index, "abort")
            return None
        before = reader.completion_tokens
        meter.began(generation.began_s, generation.queued_s)
        delta = reader.read(events)
        meter.tokens(reader.completion_tokens - before)
        if delta.finish_reason is not None:
            self._close(index, delta.finish_reason)
        elif generation.ended:
            self._ready[index] = None  # a failure is behind what was taken
        return delta

    def _close(self, index: int, reason: EndReason) -> None:
        self._open.discard(index)
        self._running[index].generation.cancel()
        self._running[index].meter.ended(reason)

    def _delivered(self, index: int) -> None:
        self._ready[index] = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
