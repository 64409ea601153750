"""The seam between the HTTP shell and whatever computes tokens.

An engine implements `Generator`; the shell calls it on the event loop's thread and never blocks there. Tokens travel
as `TokenEvent` values through a `Generation`, which the engine feeds with `Generation.deliver` on that same thread
(``loop.call_soon_threadsafe`` from any other).
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from headrace_engines.serving.codec import TextCodec
from headrace_engines.serving.embedder import Embedder
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
        logit_bias: Added to the logits of these tokens, by token id.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """What the generated text has to match, from its first character to its end.

    Attributes:
        kind: ``json_schema`` (`text` is a JSON Schema, as JSON) or ``regex`` (Python's syntax, without lookaround).
        text: The schema or the pattern.
    """

    kind: Literal["json_schema", "regex"]
    text: str


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate.

    Attributes:
        prompt_ids: Token ids of the prompt, at least one.
        max_tokens: Tokens to generate at most; prompt and this together fit `Limits.max_model_len`.
        min_tokens: No end-of-sequence token is picked before this many.
        ignore_eos: Go on after an end-of-sequence token until `max_tokens`.
        sampling: How each token is picked.
        stop_token_ids: More tokens that end the sequence, as an end-of-sequence token does; `ignore_eos` does not
            concern them, `min_tokens` does.
        top_logprobs: Report log probabilities: of the picked token (0), and of this many likeliest ones; None reports
            none.
        grammar: Only tokens that keep the text on its way to match may be picked; the end only once it does.
    """

    prompt_ids: list[int]
    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    sampling: Sampling = Sampling()
    stop_token_ids: frozenset[int] = frozenset()
    top_logprobs: int | None = None
    grammar: Grammar | None = None


class TokenLogprob(msgspec.Struct, frozen=True):
    """How likely one picked token was.

    Attributes:
        logprob: Natural logarithm of its probability under the model's own distribution (after no penalty, temperature
            or filter), as vLLM's default ``raw_logprobs``.
        top: The likeliest tokens and theirs, best first; as many as were asked for.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class TokenEvent(msgspec.Struct, frozen=True):
    """Tokens that were just made, in order.

    Attributes:
        token_ids: One or more new tokens. With `finish_reason` ``stop`` the last one is the end-of-sequence token.
        finish_reason: Set on the last event of a sequence.
        logprobs: One per token when the request asked for them, else empty.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


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
    """How many sequences are being computed and how many wait, and the share of the KV cache in use (0 to 1)."""

    running: int
    waiting: int
    kv_cache_used: float = 0.0


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

    def __init__(self, code: FatalCode | Literal["SAMPLING_IMPOSSIBLE", "GRAMMAR_INVALID"], message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class SamplingImpossible(GenerationFailed):
    """The request's own sampling leaves scores that are not numbers: the request is at fault, not the engine."""

    def __init__(self, why: str = "With these sampling parameters the tokens' scores are not finite.") -> None:
        super().__init__("SAMPLING_IMPOSSIBLE", why)


class GrammarInvalid(GenerationFailed):
    """The engine cannot follow the request's grammar: the request is at fault. Delivered before any token."""

    def __init__(self, why: str) -> None:
        super().__init__("GRAMMAR_INVALID", f"The response format cannot be followed: {why}")


class Generation:
    """One sequence on its way: an asynchronous iterator of `TokenEvent`, ended by its last event or by `cancel`.

    A reader of many sequences asks to be told (`when_delivered`) and takes what is there (`take`), without a task each.

    Args:
        on_cancel: Called at most once, on the loop's thread, when the reader gives up before the end.
    """

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self._on_cancel = on_cancel
        self._events: deque[TokenEvent] = deque()
        self._failure: GenerationFailed | None = None
        self._ended = False
        self._wake: Callable[[], None] = _nobody_waits
        self._submitted_s = time.monotonic()
        self._began_s: float | None = None

    def began(self, at_s: float) -> None:
        """Engine's side: its first computation began, on the monotonic clock, which all processes of a machine share.

        Told before its first token. A sequence that is computed anew does not begin again.
        """
        if self._began_s is None:
            self._began_s = at_s

    @property
    def began_s(self) -> float | None:
        """When its first computation began, on the monotonic clock; None until the engine has told."""
        return self._began_s

    @property
    def queued_s(self) -> float | None:
        """How long it waited for that since it was submitted; None until the engine has told."""
        return None if self._began_s is None else max(0.0, self._began_s - self._submitted_s)

    def deliver(self, event: TokenEvent | GenerationFailed) -> None:
        """Engine's side: hand over what was made. Whatever arrives after the end is dropped."""
        if self._ended:
            return
        if isinstance(event, GenerationFailed):
            self._failure = event
            self._ended = True
        else:
            self._events.append(event)
            self._ended = event.finish_reason is not None
        self._wake()

    def cancel(self) -> None:
        """Reader's side: give up. The engine stops at its next step; harmless when the sequence already ended."""
        if self._ended:
            return
        self._ended = True
        self._wake()
        self._on_cancel()

    def when_delivered(self, wake: Callable[[], None]) -> None:
        """Reader's side: `wake` is called at every delivery and at the end, on the loop's thread."""
        self._wake = wake
        if self._events or self._ended:
            wake()

    def take(self) -> list[TokenEvent]:
        """Reader's side: what was delivered since the last call, in order, without waiting.

        Raises:
            GenerationFailed: The sequence failed, and everything before was taken.
        """
        if not self._events and self._failure is not None:
            raise self._failure
        events = list(self._events)
        self._events.clear()
        return events

    @property
    def ended(self) -> bool:
        """Whether nothing more will be delivered. Something delivered before may still be there to take."""
        return self._ended

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> TokenEvent:
        if not self._events and not self._ended:
            delivered = asyncio.Event()
            self.when_delivered(delivered.set)
            await delivered.wait()
        if self._events:
            return self._events.popleft()
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration


def _nobody_waits() -> None:
    """What a delivery calls before anybody reads."""


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
    """What the shell serves: computation and text, two halves of one model. It generates or it embeds.

    Attributes:
        generator: Computes tokens; None for a model that only embeds.
        codec: Turns text into tokens and back.
        sampling: How tokens are picked where a request does not say.
        embedder: Computes embeddings; None for a model that generates.
        sees: The folder's model takes images, on an engine that passes them (`serving.images`).
        continues: Whether an answer goes on with the text of its prompt, as a decoder's does; what an encoder has read
            is another text.
    """

    generator: Generator | None
    codec: TextCodec
    sampling: Sampling = Sampling()
    embedder: Embedder | None = None
    sees: bool = False
    continues: bool = True


OnDeath = Callable[[FatalError], None]
"""Given to a generator: to be called on the loop's thread when no sequence can be computed any more."""

LoadModel = Callable[[asyncio.AbstractEventLoop, OnDeath], ServedModel]
"""Loads the weights; blocks, so the shell calls it in a thread. Raises `FatalError` when it cannot."""
