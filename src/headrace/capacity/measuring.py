"""Requests alike, so many at a time, until what they take of a replica is known well enough.

It neither knows how a request gets to the replica nor who asks: the command line measures through a gateway, a node at
the engine's own socket.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from headrace.capacity.memory import PLANNED_SEQUENCES
from headrace.capacity.units import PROMPT_TOKENS
from headrace.resources.errors import EngineBrokeOff
from headrace.resources.profiles import Grid, Point

LONGEST_S = 120.0
"""What a point takes at most; where not every one of its requests is whole by then, nothing is told of it."""

LONGEST_OUTPUT_TOKENS = 64
MOST_AT_ONCE = 16

_SAMPLE_WORDS = 200
_LEAST_WHOLE = 3
"""Requests that a point is told of, at least."""

_SHORTEST_S = 0.5
_SHARE = 0.6
"""Of a point's time, what is looked at: the rest goes by until its requests are out of step with each other."""

NEEDED = 8
"""Points from which a cost can be told: those that are done soonest have two lengths of each kind, and two numbers at a
time, when a third of them is kept apart."""

_ROUNDS = 2.5
"""How many times as long as one of its requests a point takes at least: the one that it begins with, of which the last
has all its tokens; the one under way when that is over; and a whole one."""

_KEPT = 0.99
"""Of requests, those that a latency is told of: what is sold is promised to as many."""


class Engine(Protocol):
    """Where requests go."""

    def answer(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """The stream that ``POST /v1/completions`` with this body is answered with, as it comes.

        Raises:
            HeadraceError: It is refused.
        """
        ...


class TooSlow(Exception):
    """Not every request came to its end in time."""


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Event(msgspec.Struct):
    choices: list[msgspec.Raw] = []
    usage: _Usage | None = None
    error: Any = None


def grid_for(context_tokens: int) -> Grid:
    """What is measured of a replica where nobody says: as far as its context, and the cache planned for it, have room.

    The longest prompt is that of the requests that throughputs are stated for, or two thirds of the context.
    """
    prompt = max(1, min(PROMPT_TOKENS, context_tokens * 2 // 3))
    output = max(1, min(LONGEST_OUTPUT_TOKENS, (context_tokens - prompt) // 2))
    most = max(1, min(MOST_AT_ONCE, PLANNED_SEQUENCES * context_tokens // (prompt + output)))
    concurrency = _distinct(1, round(most**0.5), most)
    return Grid(
        prompts=_distinct(prompt // 24, prompt // 3, prompt),
        outputs=_distinct(output // 4, output),
        concurrency=concurrency,
        between=tuple(at for at in _distinct(round(most**0.25), round(most**0.75)) if at not in concurrency),
    )


def _distinct(*numbers: int) -> tuple[int, ...]:
    return tuple(sorted({max(1, number) for number in numbers}))


def sample_words(context_tokens: int) -> int:
    """Of how many words a prompt is that tells how a tokeniser takes such words: fewer where the context is short.

    Args:
        context_tokens: The longest sequence that is taken; 0 where that is not known.
    """
    return max(1, min(_SAMPLE_WORDS, context_tokens // 8)) if context_tokens else _SAMPLE_WORDS


class Meter:
    """Measures one replica.

    Args:
        engine: The replica.
        model: What it is called in requests.
        context_tokens: The longest sequence that it takes.
        clock: Seconds, ever growing.
    """

    def __init__(
        self,
        engine: Engine,
        model: str,
        context_tokens: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine = engine
        self._model = model
        self._sample_words = sample_words(context_tokens)
        self.clock = clock
        self._words = random.Random()  # noqa: S311 - prompts that no replica has seen, also not of the last run
        self._words_per_token = 1.0

    async def prepare(self) -> None:
        """Ask once how the model's tokenizer takes the words that prompts are made of, and have it warm.

        Raises:
            HeadraceError: It refuses that.
        """
        usage = await self._ask(self._sample_words, 1, lambda: None)
        self._words_per_token = self._sample_words / max(1, usage.prompt_tokens)

    async def measure(self, prompt_tokens: int, output_tokens: int, concurrency: int, *, seconds: float) -> Point:
        """Run requests of these lengths for so many seconds, or until each of those at a time was whole once.

        Raises:
            HeadraceError: The replica refuses one.
            TooSlow: They take too long.
        """
        looking = _Looking(self, prompt_tokens, output_tokens, concurrency)
        tasks = [asyncio.create_task(looking.work(number)) for number in range(concurrency)]
        tasks.append(asyncio.create_task(looking.enough(seconds)))
        try:
            async with asyncio.timeout(LONGEST_S):
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # those that ask end by failing only
            return looking.point()
        except TimeoutError:
            raise TooSlow from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def sweep(self, grid: Grid, *, budget_s: float, longest_s: float) -> list[Point]:
        """Measure as much of a grid as there is time for, what is done soonest first.

        Combinations of which one round would take far more than its share of the time come last, if at all.

        Args:
            grid: What is wanted.
            budget_s: How long it may take.
            longest_s: How long, where fewer than `NEEDED` points are there by then: the replica is slow.

        Raises:
            HeadraceError: The replica refuses one.
        """
        began = self.clock()
        points: list[Point] = []
        took_s: dict[tuple[int, int], float] = {}
        wanted = sorted(grid.combinations(), key=_about)
        late: list[tuple[int, int, int]] = []
        while left := wanted or late:
            passed_s = self.clock() - began
            left_s = (budget_s if len(points) >= NEEDED else longest_s) - passed_s
            share_s = max(0.0, budget_s - passed_s) / (len(wanted) + len(late))
            at, prompt, output = one = left.pop(0)
            round_s = at * took_s.get((prompt, output), 0.0)
            if left is wanted and round_s > share_s:
                late = sorted([*late, one], key=lambda each: each[0] * took_s[each[1:]])
                continue
            if _ROUNDS * round_s > left_s:
                continue
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    point = await self.measure(prompt, output, at, seconds=max(_SHORTEST_S, share_s * _SHARE))
            except (TooSlow, TimeoutError):
                break
            took_s[prompt, output] = point.request_s
            points.append(point)
        return points

    async def ask(self, prompt_tokens: int, output_tokens: int, piece: Callable[[], None]) -> _Usage:
        """One request; `piece` is called for each piece of its answer."""
        words = max(1, round(prompt_tokens * self._words_per_token))
        return await self._ask(words, output_tokens, piece)

    async def _ask(self, words: int, output_tokens: int, piece: Callable[[], None]) -> _Usage:
        usage = _Usage()
        async with aclosing(_events(self._engine.answer(self._body(words, output_tokens)))) as events:
            async for event in events:
                if event.error is not None:
                    raise EngineBrokeOff("The replica broke off an answer.", evidence=str(event.error)[:500])
                if event.choices:
                    piece()
                usage = event.usage or usage
        return usage

    def _body(self, words: int, output_tokens: int) -> bytes:
        text = " ".join(str(self._words.randrange(10, 100)) for _ in range(words))
        return msgspec.json.encode(
            {
                "model": self._model,
                "prompt": text,
                "max_tokens": output_tokens,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )


def _about(one: tuple[int, int, int]) -> int:
    """How long a combination takes, beside others: engines read tokens some eight times as fast as they write."""
    at, prompt_tokens, output_tokens = one
    return at * (prompt_tokens + 8 * output_tokens)


async def _events(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[_Event, None]:
    rest = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    yield _read(line[6:])


def _read(event: bytes) -> _Event:
    try:
        return msgspec.json.decode(event, type=_Event)
    except msgspec.MsgspecError as error:
        raise EngineBrokeOff("An answer of the replica cannot be read.", evidence=str(error)) from error


class _Looking:
    """One point: so many that ask one request after another, and what they see once all of them are at it.

    The first requests have different lengths, so that those that follow are out of step with each other, as requests of
    strangers are.
    """

    def __init__(self, meter: Meter, prompt_tokens: int, output_tokens: int, concurrency: int) -> None:
        self._meter = meter
        self._prompt_tokens, self._output_tokens = prompt_tokens, output_tokens
        self._concurrency = concurrency
        self._busy = asyncio.Event()
        self._began = 0.0
        self._warm = 0
        self._news = asyncio.Event()
        self._spans: list[list[tuple[float, float]]] = [[] for _ in range(concurrency)]
        self._usages: list[_Usage] = []
        self._firsts: list[float] = []
        self._gaps: list[float] = []

    async def work(self, number: int) -> None:
        """Ask one after another, without end."""
        await self._ask(max(1, self._output_tokens * (number + 1) // self._concurrency))
        self._warm += 1
        if self._warm == self._concurrency:
            self._began = self._meter.clock()
            self._busy.set()
        while True:
            began, counted = self._meter.clock(), self._busy.is_set()
            first_s, gap_s, usage = await self._ask(self._output_tokens)
            if counted:
                self._spans[number].append((began, self._meter.clock()))
                self._usages.append(usage)
                self._firsts.append(first_s)
                self._gaps.append(gap_s)
                self._news.set()

    async def enough(self, seconds: float) -> None:
        """Return when there is enough to tell."""
        await self._busy.wait()
        while not all(self._spans) or len(self._usages) < _LEAST_WHOLE:
            self._news.clear()
            await self._news.wait()
        await asyncio.sleep(max(0.0, self._began + seconds - self._meter.clock()))

    def point(self) -> Point:
        """What was seen: each one's requests took from the beginning of its first one to the end of its last."""
        wall_s = self._meter.clock() - self._began
        a_second = sum(len(spans) / (spans[-1][1] - spans[0][0]) for spans in self._spans)
        whole = len(self._usages)
        return Point(
            prompt_tokens=max(1, round(sum(one.prompt_tokens for one in self._usages) / whole)),
            output_tokens=round(sum(one.completion_tokens for one in self._usages) / whole) or self._output_tokens,
            concurrency=self._concurrency,
            requests=a_second * wall_s,
            wall_s=wall_s,
            first_s=_quantile(self._firsts),
            gap_s=_quantile(self._gaps),
        )

    async def _ask(self, output_tokens: int) -> tuple[float, float, _Usage]:
        """One request: its time to first token, the mean time between its tokens, and its lengths."""
        at = [self._meter.clock()]
        usage = await self._meter.ask(self._prompt_tokens, output_tokens, lambda: at.append(self._meter.clock()))
        began, first, last = at[0], at[min(1, len(at) - 1)], at[-1]
        return first - began, (last - first) / max(1, usage.completion_tokens - 1), usage


def _quantile(values: list[float]) -> float:
    """What 99 of 100 keep, all where there are fewer; 0 of nothing."""
    return sorted(values)[min(len(values) - 1, int(_KEPT * len(values)))] if values else 0.0
