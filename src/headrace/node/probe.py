"""What a node asks of an engine: is it healthy, and can it really do what it is for."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headrace.node.http import HttpClient
from headrace.resources.deployments import Warmup
from headrace.resources.errors import EngineSleepFailed, EngineWarmupFailed
from headrace.runtimes import SleepMode

WARMUP_TOKENS = 16

MEASURED_S = 0.5
"""About how long each half of the measured generation may take, reading and writing: it has as many tokens as the first
one's rate gives in that time. No engine reads slower than it writes."""

MEASURED_TOKENS = (8, 192)
"""No fewer and no more than this, in each half."""

_HEALTH_POLL_S = 0.2
_CARD_TIMEOUT_S = 10.0
_PROMPT = "The river runs"
_WORDS = ("stone", "water", "light", "field", "north", "house", "paper", "music", "green", "bridge", "winter")
"""Of about one token each, whatever the tokenizer; what the prompt says is of no account."""


class _Card(msgspec.Struct):
    task: str = "generate"


class _Cards(msgspec.Struct):
    data: list[_Card] = []


class _Sleeping(msgspec.Struct):
    is_sleeping: bool


class _Vector(msgspec.Struct):
    embedding: list[float]


class _Embeddings(msgspec.Struct):
    data: list[_Vector]
    usage: dict[str, int] = {}


class Patience(msgspec.Struct, frozen=True):
    """What a node takes from a READY engine that does not answer ``GET /health``.

    An engine answers that on its event loop, whatever its model computes: one that is busy is not late with it.

    Attributes:
        every_s: The pause between two probes.
        timeout_s: How long a probe waits for its answer.
        misses_told: Misses in a row after which control is told, and routes around it.
        give_up_s: Time without an answer after which it is killed, to be replaced.
        turn_s: How long it may take to fall asleep or to wake: weights of some hundred GB have to be moved.
    """

    every_s: float = 5.0
    timeout_s: float = 5.0
    misses_told: int = 3
    give_up_s: float = 60.0
    turn_s: float = 120.0


class EngineBroken(EngineWarmupFailed):
    """The connection broke in the middle: the engine's process may be about to end."""


class EngineBrokeTurning(EngineSleepFailed):
    """The same while it was falling asleep or waking."""


class EngineSilent(EngineSleepFailed):
    """It neither obeyed nor refused in time, and would not end in time, either."""


class _Generation(NamedTuple):
    """One streamed generation: tokens as the engine counted them, the first's delay, and the rate of those after it."""

    prompt_tokens: int
    first_s: float
    tokens: int
    tokens_per_s: float

    def warmup(self) -> Warmup:
        """As the first of WARMING."""
        return Warmup(time_to_first_token_s=self.first_s, tokens_per_s=self.tokens_per_s, output_tokens=self.tokens)


class EngineProbe:
    """Calls to one engine.

    Args:
        socket: Where it listens.
        nonce: Its bearer token.
        served_name: The model name that it answers to.
        timeout_s: How long an answer to ``GET /health`` is waited for.
    """

    def __init__(self, socket: Path, nonce: str, served_name: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._served_name = served_name
        self._client = HttpClient(f"unix:{socket}", nonce)

    async def healthy(self) -> bool:
        """Whether ``GET /health`` answers 200 in time."""
        try:
            answer = await self._client.request("GET", "/health", timeout_s=self._timeout_s)
        except ConnectionError:
            return False
        return answer.status == 200

    async def until_healthy(self) -> None:
        """Wait for it; the caller sets the deadline."""
        while not await self.healthy():  # noqa: ASYNC110 - another process's state: there is no event to wait for
            await asyncio.sleep(_HEALTH_POLL_S)

    async def warm_up(self, max_model_len: int) -> Warmup:
        """One real streamed generation of `WARMUP_TOKENS`, or of half the context where that is less, and a longer one.

        The longer one takes about a second and is measured, to stand beside the plan; should it fail, it is left out.
        An engine that makes embeddings makes one instead. The caller sets the deadline.

        Raises:
            EngineWarmupFailed: It did not come to an end with at least one token, or with a vector.
        """
        try:
            if await self._embeds():
                return await self._embed()
            first = (await self._generate(_PROMPT, max(1, min(WARMUP_TOKENS, max_model_len // 2)))).warmup()
            return await self._with_a_longer_one(first, max_model_len)
        except ConnectionError as error:
            raise EngineBroken("The engine broke off its first answer.", evidence=str(error)) from error
        except (msgspec.MsgspecError, TypeError, AttributeError) as error:
            raise _failed(f"Its answer cannot be read: {type(error).__name__}: {error}") from error

    async def turn(self, mode: SleepMode, *, asleep: bool, timeout_s: float) -> float:
        """Have it fall asleep, or wake; returns the seconds that it took.

        Raises:
            EngineSleepFailed: It refused, or says afterwards that it did not; `EngineBrokeTurning` where it broke off,
                `EngineSilent` where it said nothing within `timeout_s`.
        """
        wish = "fall asleep" if asleep else "wake"
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._client.request("POST", mode.sleep if asleep else mode.wake, body=b"")
                took_s = time.monotonic() - began
                if answer.ok:
                    answer = await self._client.request("GET", mode.state)
            if answer.ok and msgspec.json.decode(answer.body, type=_Sleeping).is_sleeping is asleep:
                return took_s
        except msgspec.MsgspecError:
            pass  # told below
        except TimeoutError as error:
            raise EngineSilent(f"The engine did not {wish} within {timeout_s:g} s.") from error
        except ConnectionError as error:
            raise EngineBrokeTurning(f"The engine did not {wish}.", evidence=str(error)) from error
        said = answer.body[:500].decode(errors="replace")
        raise EngineSleepFailed(f"The engine did not {wish}.", evidence=f"Status {answer.status}: {said}")

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()

    async def _embeds(self) -> bool:
        """What it says of its model. Other makers' engines say nothing of a task, and generate."""
        answer = await self._client.request("GET", "/v1/models", timeout_s=_CARD_TIMEOUT_S)
        cards = msgspec.json.decode(answer.body, type=_Cards) if answer.ok else _Cards()
        return any(card.task == "embed" for card in cards.data)

    async def _embed(self) -> Warmup:
        """One vector. Its rate is that of the prompt's tokens; no token is put out."""
        request = msgspec.json.encode({"model": self._served_name, "input": _PROMPT})
        began = time.monotonic()
        async with self._client.stream("POST", "/v1/embeddings", body=request) as response:
            said = await response.aread()
            if response.status != 200:
                raise _failed(f"Status {response.status}: {said[:500].decode(errors='replace')}")
        took_s = time.monotonic() - began
        answer = msgspec.json.decode(said, type=_Embeddings)
        if not answer.data or not answer.data[0].embedding:
            raise _failed("It answered without a vector.")
        rate = answer.usage.get("prompt_tokens", 0) / took_s
        return Warmup(time_to_first_token_s=took_s, tokens_per_s=rate, output_tokens=0)

    async def _with_a_longer_one(self, first: Warmup, max_model_len: int) -> Warmup:
        """What the first one measured contains what an engine does but once; what a second one measures does not."""
        fewest, most = MEASURED_TOKENS
        tokens = round(max(fewest, min(most, first.tokens_per_s * MEASURED_S, max_model_len // 4)))
        if 4 * tokens > max_model_len:  # the prompt may have twice as many tokens as words
            return first
        try:
            second = await self._generate(" ".join(itertools.islice(itertools.cycle(_WORDS), tokens)), tokens)
        except EngineBroken:
            raise
        except EngineWarmupFailed:  # the first one went well
            return first
        if not second.prompt_tokens or second.tokens < fewest:
            return first
        return msgspec.structs.replace(
            first, prompt_tokens=second.prompt_tokens, prompt_s=second.first_s, decode_tokens_per_s=second.tokens_per_s
        )

    async def _generate(self, prompt: str, tokens: int) -> _Generation:
        request = {
            "model": self._served_name,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began = time.monotonic()
        async with self._client.stream("POST", "/v1/completions", body=msgspec.json.encode(request)) as response:
            if response.status != 200:
                said = (await response.aread())[:500].decode(errors="replace")
                raise _failed(f"Status {response.status}: {said}")
            return await _measure(response.aiter_stream(), began)


async def _measure(chunks: AsyncIterable[bytes], began: float) -> _Generation:
    chunk_times: list[float] = []
    tokens = prompt_tokens = 0
    async for event in _events(chunks):
        if "error" in event:
            raise _failed(str(event["error"]))
        if event.get("choices"):
            chunk_times.append(time.monotonic())
        usage = event.get("usage") or {}
        tokens = usage.get("completion_tokens", tokens)
        prompt_tokens = usage.get("prompt_tokens", prompt_tokens)
    tokens = tokens or len(chunk_times)
    if not chunk_times:
        raise _failed("The stream ended without a token.")
    after_first_s = chunk_times[-1] - chunk_times[0]
    to_first_s = chunk_times[0] - began
    rate = (tokens - 1) / after_first_s if tokens > 1 and after_first_s > 0 else tokens / to_first_s
    return _Generation(prompt_tokens, to_first_s, tokens, rate)


async def _events(chunks: AsyncIterable[bytes]) -> AsyncIterator[dict[str, Any]]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield msgspec.json.decode(data)


def _failed(evidence: str) -> EngineWarmupFailed:
    return EngineWarmupFailed(
        "The engine says that it is healthy and yet its first answer failed.",
        evidence=evidence,
        fix="Read its log (`headrace logs`).",
    )
