"""The seam between the HTTP shell and whatever computes tokens.

An engine implements `Generator`; the shell calls it on the event loop's thread and never blocks there. Tokens travel
as `TokenEvent` values through a `Generation`, which the engine feeds with `Generation.deliver` on that same thread
(``loop.call_soon_threadsafe`` from any other).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from headrace_engines.serving.codec import TextCodec
from headrace_engines.serving.fatal import FatalCode, FatalError

FinishReason = Literal["stop", "length"]
"""Why an engine ended a sequence: an end-of-sequence token, or the token budget. Stop *strings* are the shell's."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is picked. The defaults sample from the model's own distribution.

    Attributes:
        temperature: Divides the logits; 0 means greedy.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the smallest set of likeliest tokens that reaches this probability.
        min_p: Drop tokens less likely than this share of the likeliest one's probability.
        seed: Makes the draw reproducible; None draws a fresh one.
        repetition_penalty: Divides (multiplies, when negative) the logit of every token seen, prompt included.
        presence_penalty: Subtracted once from the logit of each token generated before.
        frequency_penalty: Subtracted as many times as the token was generated before.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate.

    Attributes:
        prompt_ids: Token ids of the prompt, at least one.
        max_tokens: Tokens to generate at most; prompt and this together fit `Limits.max_model_len`.
        min_tokens: No end-of-sequence token is picked before this many.
        ignore_eos: Go on after an end-of-sequence token until `max_tokens`.
        sampling: How each token is picked.
    """

    prompt_ids: list[int]
    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    sampling: Sampling = Sampling()


class TokenEvent(msgspec.Struct, frozen=True):
    """Tokens that were just made, in order.

    Attributes:
        token_ids: One or more new tokens. With `finish_reason` ``stop`` the last one is the end-of-sequence token.
        finish_reason: Set on the last event of a sequence.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one generator can take.

    Attributes:
        max_model_len: Tokens of prompt and completion together.
        max_running: Sequences computed at the same time.
        max_waiting: Sequences accepted beyond those; more are refused with `QueueFull`.
        vocab_size: Token ids are below this.
    """

    max_model_len: int
    max_running: int
    max_waiting: int
    vocab_size: int


class Load(NamedTuple):
    """How many sequences are being computed and how many wait."""

    running: int
    waiting: int


class QueueFull(Exception):
    """The waiting room is full.

    Attributes:
        limits: The limits that were met.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(f"{limits.max_running} requests are running and {limits.max_waiting} are waiting.")
        self.limits = limits


class GenerationFailed(Exception):
    """This sequence cannot go on; others may.

    Attributes:
        code: The class of failure, named as a fatal one would be, or of a subclass.
        message: One sentence for the client.
    """

    def __init__(self, code: FatalCode | Literal["SAMPLING_IMPOSSIBLE"], message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class SamplingImpossible(GenerationFailed):
    """The request's own sampling leaves scores that are not numbers: the request is at fault, not the engine."""

    def __init__(self) -> None:
        super().__init__("SAMPLING_IMPOSSIBLE", "With these sampling parameters the tokens' scores are not finite.")


class Generation:
    """One sequence on its way: an asynchronous iterator of `TokenEvent`, ended by its last event or by `cancel`.

    Args:
        on_cancel: Called at most once, on the loop's thread, when the reader gives up before the end.
    """

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self._on_cancel = on_cancel
        self._events: asyncio.Queue[TokenEvent | GenerationFailed | None] = asyncio.Queue()
        self._ended = False

    def deliver(self, event: TokenEvent | GenerationFailed) -> None:
        """Engine's side: hand over what was made. Whatever arrives after the end is dropped."""
        if self._ended:
            return
        self._ended = isinstance(event, GenerationFailed) or event.finish_reason is not None
        self._events.put_nowait(event)
        if self._ended:
            self._events.put_nowait(None)

    def cancel(self) -> None:
        """Reader's side: give up. The engine stops at its next step; harmless when the sequence already ended."""
        if self._ended:
            return
        self._ended = True
        self._events.put_nowait(None)
        self._on_cancel()

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> TokenEvent:
        event = await self._events.get()
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, GenerationFailed):
            raise event
        return event


class Generator(ABC):
    """Computes tokens for several sequences at once. Every method is called on the event loop's thread."""

    limits: Limits

    @abstractmethod
    def submit(self, request: GenerationRequest) -> Generation:
        """Queue one sequence.

        Raises:
            QueueFull: The waiting room is full.
            GenerationFailed: The generator has died.
        """

    @abstractmethod
    def load(self) -> Load:
        """What runs and waits now, without waiting for a step."""


class ServedModel(NamedTuple):
    """What the shell serves: token computation and text, two halves of one model.

    Attributes:
        generator: Computes tokens.
        codec: Turns text into tokens and back.
        sampling: How tokens are picked where a request does not say.
    """

    generator: Generator
    codec: TextCodec
    sampling: Sampling = Sampling()


OnDeath = Callable[[FatalError], None]
"""Given to a generator: to be called on the loop's thread when no sequence can be computed any more."""

LoadModel = Callable[[asyncio.AbstractEventLoop, OnDeath], ServedModel]
"""Loads the weights; blocks, so the shell calls it in a thread. Raises `FatalError` when it cannot."""
