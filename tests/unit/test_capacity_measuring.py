"""How a replica is measured, on a clock that only moves when everybody waits: it tells what the engine takes."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.capacity.measuring import LONGEST_S, NEEDED, Meter, TooSlow, grid_for
from headrace.capacity.memory import PLANNED_SEQUENCES
from headrace.cli.output import Output
from headrace.cli.profile.command_line import measure_all
from headrace.cli.progress import Steps
from headrace.resources.errors import EngineBrokeOff
from headrace.resources.profiles import Grid

T = TypeVar("T")
TOKENS_PER_WORD = 2


class _Waits(selectors.DefaultSelector):  # type: ignore[misc,valid-type]  # whichever the system has
    """Nothing comes from outside: whoever would wait has waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """The clock moves."""
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._waits = _Waits()
        super().__init__(self._waits)

    def time(self) -> float:
        """What is told, and not what a clock on the wall says."""
        return self._waits.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on that clock."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


class Steady:
    """An engine that takes as long for each token, whoever else asks.

    Args:
        prompt_s: For a token that it reads.
        token_s: For one that it writes.
    """

    def __init__(self, prompt_s: float, token_s: float) -> None:
        self.prompt_s, self.token_s = prompt_s, token_s
        self.asked: list[tuple[int, int]] = []
        self.at_once = self.most_at_once = 0
        self.breaks_at = 0

    async def answer(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """Its stream, cut where it hurts."""
        asked = msgspec.json.decode(body)
        prompt, output = TOKENS_PER_WORD * len(asked["prompt"].split()), asked["max_tokens"]
        self.asked.append((prompt, output))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(prompt * self.prompt_s)
            for number in range(output):
                if number:
                    await asyncio.sleep(self.token_s)
                if len(self.asked) == self.breaks_at:
                    yield b'data: {"error": {"message": "out of memory"}}\n\n'
                yield b'data: {"choices": [{"te'
                yield b'xt": "x"}]}\n\n'
            usage = {"prompt_tokens": prompt, "completion_tokens": output}
            yield b"data: " + msgspec.json.encode({"choices": [], "usage": usage}) + b"\n\ndata: [DONE]\n\n"
        finally:
            self.at_once -= 1


def meter(engine: Steady) -> Meter:
    """One for it, on the clock of the loop that runs."""
    return Meter(engine, "m", 4096, clock=asyncio.get_running_loop().time)


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-4, 1e-2), st.floats(1e-3, 0.1), st.integers(1, 16), st.integers(2, 40), st.integers(2, 200))
def test_a_point_tells_what_a_request_takes(prompt_s: float, token_s: float, at: int, output: int, words: int) -> None:
    """Of the engine's time, whatever the number at a time, and its latencies; only so many are asked at a time."""

    async def live() -> None:
        engine = Steady(prompt_s, token_s)
        one = meter(engine)
        await one.prepare()
        point = await one.measure(TOKENS_PER_WORD * words, output, at, seconds=1.0)
        alone_s = TOKENS_PER_WORD * words * prompt_s + (output - 1) * token_s
        assert point.request_s == pytest.approx(alone_s / at, rel=1e-6)
        assert (point.prompt_tokens, point.output_tokens) == (TOKENS_PER_WORD * words, output)
        assert point.first_s == pytest.approx(TOKENS_PER_WORD * words * prompt_s)
        assert point.gap_s == pytest.approx(token_s)
        assert engine.most_at_once == at
        assert engine.at_once == 0, "what is under way at the end is let go"

    run(live())


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-5, 0.1), st.floats(1e-4, 1.0), st.floats(1.0, 100.0))
def test_a_sweep_never_takes_longer_than_it_may(prompt_s: float, token_s: float, budget_s: float) -> None:
    """However slow the engine is; a fast one is measured with everything, and no combination comes twice."""

    async def live() -> None:
        one = meter(Steady(prompt_s, token_s))
        await one.prepare()
        began = one.clock()
        points = await one.sweep(
            Grid(prompts=(32, 256), outputs=(4, 16), concurrency=(1, 4, 8)), budget_s=budget_s, longest_s=3 * budget_s
        )
        assert one.clock() - began <= 3 * budget_s + 1e-6
        if len(points) > NEEDED:
            assert one.clock() - began <= budget_s + 1e-6
        seen = [(point.prompt_tokens, point.output_tokens, point.concurrency) for point in points]
        assert len(set(seen)) == len(seen)
        if budget_s > 10.0 and 256 * prompt_s + 16 * token_s < budget_s / 400:
            assert len(seen) == 12

    run(live())


def test_what_takes_too_long_and_what_breaks_is_told() -> None:
    """Neither is a point; a sweep ends with what it has."""

    async def live() -> None:
        slow = meter(Steady(0.0, LONGEST_S))
        with pytest.raises(TooSlow):
            await slow.measure(8, 4, 1, seconds=1.0)
        assert await slow.sweep(Grid(prompts=(8,), outputs=(4,), concurrency=(1,)), budget_s=50.0, longest_s=50.0) == []
        engine = Steady(1e-3, 1e-2)
        engine.breaks_at = 5
        with pytest.raises(EngineBrokeOff, match="out of memory"):
            await meter(engine).measure(8, 4, 2, seconds=1.0)
        assert engine.at_once == 0

    run(live())


def test_a_profile_leaves_out_what_is_too_slow_and_keeps_the_rest() -> None:
    """Minutes of measurements are not lost for one of them; what is no shorter than what was too slow is not tried."""

    async def live() -> None:
        engine = Steady(LONGEST_S / 1000, 0.01)
        one = meter(engine)
        await one.prepare()
        wanted = Grid(prompts=(8, 700), outputs=(2, 4), concurrency=(1, 4)).combinations_in(4096)
        began = one.clock()
        points, left_out = await measure_all(one, wanted, Steps(Output(as_json=True), silent=True), seconds=1.0)
        assert [point.prompt_tokens for point in points] == [8] * 4
        assert left_out == [each for each in wanted if each[1] == 700]
        assert one.clock() - began < 2 * LONGEST_S, "only the shortest of them was tried"

    run(live())


def test_a_profile_asks_for_what_the_context_has_room_for() -> None:
    """Lengths that are too long are not asked; numbers between are of the longest that is."""
    grid = Grid(prompts=(8, 64), outputs=(2, 4), concurrency=(1, 4), between=(2,))
    assert grid.combinations_in(10) == [(1, 8, 2), (2, 8, 2), (4, 8, 2)]
    assert set(grid.combinations_in(100)) == set(grid.combinations())
    assert grid.combinations_in(4) == []


@given(st.integers(1, 200_000))
def test_the_grid_fits_context_and_cache(context: int) -> None:
    """No request is longer than the context, and all at a time have room in the cache that is planned."""
    grid = grid_for(context)
    longest = grid.prompts[-1] + grid.outputs[-1]
    assert longest <= max(context, 2)
    assert grid.concurrency[-1] * longest <= max(PLANNED_SEQUENCES * context, longest)
    if context >= 128:
        assert min(map(len, (grid.prompts, grid.outputs, grid.concurrency))) >= 2, "a cost can be told from it"
    if context >= 2048:
        assert grid == Grid(prompts=(32, 256, 768), outputs=(16, 64), concurrency=(1, 4, 16), between=(2, 8))
