"""The `Generator` of this engine: a queue, and one thread that owns the model."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from headrace_engines.serving.fatal import FatalError, fatal_from
from headrace_engines.serving.generator import (
    Generation,
    GenerationFailed,
    GenerationRequest,
    Generator,
    Grammar,
    GrammarInvalid,
    Limits,
    Load,
    OnDeath,
    QueueFull,
)
from headrace_engines.transformers.batch import Batch, Outcome
from headrace_engines.transformers.grammar import GrammarCompiler
from headrace_engines.transformers.sequence import Sequence

_log = logging.getLogger(__name__)


class SteppingGenerator(Generator):
    """Runs a batch step by step in a thread of its own; tokens cross to the event loop once per step.

    Args:
        batch: Decides what is computed together; used by the model's thread only.
        limits: What is accepted.
        end_ids: End-of-sequence tokens.
        grammars: Makes what follows a request's grammar.
        device: Where the model is.
        threads: CPU threads of a step; torch keeps this number per calling thread.
        alive: Computes something tiny with the model, to tell a failed request from a dead engine.
        loop: Where events are delivered.
        on_death: Called there when no step can succeed any more.
    """

    def __init__(
        self,
        *,
        batch: Batch,
        limits: Limits,
        end_ids: frozenset[int],
        grammars: GrammarCompiler,
        device: str,
        threads: int | None,
        alive: Callable[[], Any],
        loop: asyncio.AbstractEventLoop,
        on_death: OnDeath,
    ) -> None:
        self.limits = limits
        self._batch = batch
        self._end_ids = end_ids
        self._device = device
        self._threads = threads
        self._alive = alive
        self._loop = loop
        self._on_death = on_death
        self._fatal: FatalError | None = None
        self._open: set[Sequence] = set()  # submitted and not ended; the event loop's thread only
        self._changed = threading.Condition()
        self._waiting: deque[Sequence] = deque()  # under _changed
        self._running = 0
        self._cache_used = 0.0
        self._grammars = grammars
        # Apart from the model's thread: a grammar that takes seconds to compile holds up no other sequence.
        self._grammar_thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue one sequence."""
        if self._fatal is not None:
            raise GenerationFailed(self._fatal.code, self._fatal.message)
        if len(self._open) >= self.limits.max_running + self.limits.max_waiting:
            raise QueueFull(self.limits)
        generation = Generation(lambda: self._cancel(sequence))
        sequence = Sequence(request, generation, self._end_ids, self._device)
        self._open.add(sequence)
        if request.grammar is None:
            self._enqueue(sequence)
        else:
            self._grammar_thread.submit(self._enqueue_with_grammar, sequence, request.grammar)
        return generation

    def load(self) -> Load:
        """What runs and waits now."""
        return Load(self._running, len(self._waiting), self._cache_used)

    def _enqueue(self, sequence: Sequence) -> None:
        with self._changed:
            self._waiting.append(sequence)
            self._changed.notify()

    def _enqueue_with_grammar(self, sequence: Sequence, grammar: Grammar) -> None:
        if sequence.cancelled:
            return
        try:
            sequence.sampler.follower = self._grammars.compile(grammar)
        except GenerationFailed as error:
            self._loop.call_soon_threadsafe(self._deliver, [Outcome(sequence, error)])
        except Exception as error:
            _log.exception("A grammar failed.")
            failure = GrammarInvalid(f"{type(error).__name__}.")
            self._loop.call_soon_threadsafe(self._deliver, [Outcome(sequence, failure)])
        else:
            self._enqueue(sequence)

    def _cancel(self, sequence: Sequence) -> None:
        sequence.cancelled = True
        self._open.discard(sequence)
        with self._changed:
            if sequence in self._waiting:
                self._waiting.remove(sequence)

    def _run(self) -> None:
        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            with torch.inference_mode():
                while True:
                    self._step()
        except Exception as error:
            _log.exception("The engine cannot compute anything any more.")
            self._loop.call_soon_threadsafe(self._die, fatal_from(error))

    def _step(self) -> None:
        self._admit()
        outcomes = self._batch.step()
        self._running, self._cache_used = len(self._batch), self._batch.cache_used
        self._loop.call_soon_threadsafe(self._deliver, outcomes)
        if any(isinstance(outcome.event, GenerationFailed) for outcome in outcomes):
            self._alive()

    def _admit(self) -> None:
        """Fill the batch from the queue; with nothing to do, wait for a sequence."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or len(self._batch))
            while self._waiting and self._batch.has_room(self._waiting[0]):
                sequence = self._waiting.popleft()
                sequence.began_s = time.monotonic()
                self._batch.add(sequence)
            self._running = len(self._batch)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for sequence, event in outcomes:
            if sequence.began_s is not None:
                sequence.generation.began(sequence.began_s)
            sequence.generation.deliver(event)
            if isinstance(event, GenerationFailed) or event.finish_reason is not None:
                self._open.discard(sequence)

    def _die(self, fatal: FatalError) -> None:
        self._fatal = fatal
        for sequence in self._open:
            sequence.generation.deliver(GenerationFailed(fatal.code, fatal.message))
        self._open.clear()
        self._on_death(fatal)
