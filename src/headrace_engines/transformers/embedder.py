"""The `Embedder` of this engine: inputs of all requests, put together by length, in one thread that owns the model."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from headrace_engines.serving.embedder import Embedder, EmbedderLimits
from headrace_engines.serving.fatal import FatalError, fatal_from
from headrace_engines.serving.generator import GenerationFailed, Limits, OnDeath, QueueFull
from headrace_engines.transformers.batch import failed

_log = logging.getLogger(__name__)

PASS_TOKENS = 4096
"""Tokens of one pass, padding included: enough to keep the cores busy, and a bound on what activations take."""

MAX_WAITING_INPUTS = 8192
"""Inputs accepted and not computed; beyond these a request is refused."""


class _Input(NamedTuple):
    token_ids: list[int]
    place: asyncio.Future[list[float]]


class EncoderEmbedder(Embedder):
    """Computes inputs of like length together, whichever requests they came with.

    Args:
        encode: Vectors of a batch, from token ids and a mask of shape (inputs, tokens).
        pad_id: The token behind the end of shorter inputs.
        limits: What is accepted.
        device: Where the model is.
        threads: CPU threads of a pass; torch keeps this number per calling thread.
        loop: Where vectors are delivered.
        on_death: Called there when no input can be computed any more.
    """

    def __init__(
        self,
        encode: Callable[[Any, Any], Any],
        *,
        pad_id: int,
        limits: EmbedderLimits,
        device: str,
        threads: int | None,
        loop: asyncio.AbstractEventLoop,
        on_death: OnDeath,
    ) -> None:
        self.limits = limits
        self._encode = encode
        self._pad_id = pad_id
        self._device = device
        self._threads = threads
        self._loop = loop
        self._on_death = on_death
        self._fatal: FatalError | None = None
        self._changed = threading.Condition()
        self._waiting: list[_Input] = []  # under _changed
        self._open: set[asyncio.Future[list[float]]] = set()  # the event loop's thread only
        threading.Thread(target=self._run, name="model", daemon=True).start()

    async def embed(self, inputs: list[list[int]], computed: Callable[[int], object]) -> list[list[float]]:
        """The vectors of `inputs`."""
        if self._fatal is not None:
            raise GenerationFailed(self._fatal.code, self._fatal.message)
        if len(self._open) + len(inputs) > MAX_WAITING_INPUTS:
            raise QueueFull(
                Limits(
                    max_model_len=self.limits.max_input_tokens,
                    max_running=0,
                    max_waiting=MAX_WAITING_INPUTS,
                    vocab_size=self.limits.vocab_size,
                )
            )
        places = [self._loop.create_future() for _ in inputs]
        self._open.update(places)
        for token_ids, place in zip(inputs, places, strict=True):
            place.add_done_callback(self._open.discard)
            place.add_done_callback(partial(_tell, computed, len(token_ids)))
        with self._changed:
            self._waiting += [_Input(token_ids, place) for token_ids, place in zip(inputs, places, strict=True)]
            self._changed.notify()
        # When the caller is cancelled, so is every place, and what was not computed yet is left out.
        vectors: list[list[float]] = await asyncio.gather(*places)
        return vectors

    def _run(self) -> None:
        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            with torch.inference_mode():
                while True:
                    self._pass()
        except Exception as error:
            _log.exception("The engine cannot compute anything any more.")
            self._loop.call_soon_threadsafe(self._die, fatal_from(error))

    def _pass(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        try:
            vectors = self._vectors([one.token_ids for one in batch])
        except Exception as error:
            _log.exception("A pass failed.")
            self._loop.call_soon_threadsafe(_fail, batch, failed(error))
            self._vectors([[self._pad_id]])  # tells a failed request from a dead engine
        else:
            self._loop.call_soon_threadsafe(_deliver, batch, vectors)

    def _next_batch(self) -> list[_Input]:
        """The oldest input, and those nearest to it in length that fit the pass."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            self._waiting = [one for one in self._waiting if not one.place.done()]
            if not self._waiting:
                return []
            oldest = len(self._waiting[0].token_ids)
            by_length = sorted(self._waiting, key=lambda one: abs(len(one.token_ids) - oldest))
            batch: list[_Input] = []
            longest = 0
            for one in by_length:
                longest = max(longest, len(one.token_ids))
                if batch and (len(batch) + 1) * longest > PASS_TOKENS:
                    break
                batch.append(one)
            taken = {id(one) for one in batch}
            self._waiting = [one for one in self._waiting if id(one) not in taken]
            return batch

    def _vectors(self, inputs: list[list[int]]) -> list[list[float]]:
        longest = max(len(token_ids) for token_ids in inputs)
        padded = [token_ids + [self._pad_id] * (longest - len(token_ids)) for token_ids in inputs]
        mask = [[1] * len(token_ids) + [0] * (longest - len(token_ids)) for token_ids in inputs]
        vectors = self._encode(torch.tensor(padded, device=self._device), torch.tensor(mask, device=self._device))
        if not bool(torch.isfinite(vectors).all()):
            raise GenerationFailed("ENGINE_BAD_TENSOR", "The model computed a vector that is not finite.")
        listed: list[list[float]] = vectors.tolist()
        return listed

    def _die(self, fatal: FatalError) -> None:
        self._fatal = fatal
        for place in list(self._open):
            if not place.done():
                place.set_exception(GenerationFailed(fatal.code, fatal.message))
        self._on_death(fatal)


def _tell(computed: Callable[[int], object], tokens: int, place: asyncio.Future[list[float]]) -> None:
    if not place.cancelled() and place.exception() is None:
        computed(tokens)


def _deliver(batch: list[_Input], vectors: list[list[float]]) -> None:
    for (_, place), vector in zip(batch, vectors, strict=True):
        if not place.done():
            place.set_result(vector)


def _fail(batch: list[_Input], error: GenerationFailed) -> None:
    for _, place in batch:
        if not place.done():
            place.set_exception(error)
