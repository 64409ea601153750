"""What a request costs a replica: fitted coefficients tell what was not measured, and chunks are never oversold."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.capacity.cost import fit, measured, most_at_once
from headrace.capacity.units import SLICES, chunk, replicas, tokens_per_s
from headrace.resources.errors import BadField, ProfileTooSmall
from headrace.resources.profiles import Carried, Cost, Point

PROMPTS, OUTPUTS, AT = (32, 256, 1024), (16, 64), (1, 4, 16)
COSTS = st.builds(
    Cost,
    prompt=st.floats(1e-5, 1e-2),
    prompt_squared=st.floats(0.0, 1e-6),
    step=st.floats(1e-4, 0.1),
    sequence=st.floats(0.0, 0.02),
    context=st.floats(0.0, 1e-6),
)


def _points(cost: Cost, *, noise: float = 0.0, seed: int = 0) -> list[Point]:
    """A replica that costs just this, looked at by a clock that is off."""
    chance = random.Random(seed)
    return [
        Point(
            prompt_tokens=prompt,
            output_tokens=output,
            concurrency=at,
            requests=10.0,
            wall_s=10.0 * cost.work_s(prompt, output, at) * (1.0 + chance.uniform(-noise, noise)),
        )
        for prompt in PROMPTS
        for output in OUTPUTS
        for at in AT
    ]


@given(COSTS)
def test_a_replica_that_is_as_the_model_says_is_found(cost: Cost) -> None:
    """Without noise the fit tells every request's work, also of lengths between and beyond, to a per mille."""
    fitted = fit(_points(cost))
    assert fitted.worst_error < 1e-3
    for prompt, output, at in ((100, 30, 8), (4096, 256, 32), (1, 1, 1)):
        assert fitted.cost.work_s(prompt, output, at) == pytest.approx(cost.work_s(prompt, output, at), rel=0.02)


@given(COSTS, st.integers(0, 2**32))
def test_noise_moves_it_by_little_more_than_itself(cost: Cost, seed: int) -> None:
    """Measurements that are off by up to five per cent: no coefficient is negative, and what was held out is near."""
    fitted = fit(_points(cost, noise=0.05, seed=seed))
    assert min(fitted.cost.prompt, fitted.cost.step, fitted.cost.sequence, fitted.cost.context) >= 0.0
    assert fitted.mean_error < 0.25
    assert (fitted.points, fitted.held_out) == (12, 6)


def test_it_is_not_the_order_that_counts() -> None:
    """The same points give the same fit, however they come."""
    cost = Cost(prompt=1e-3, prompt_squared=1e-8, step=0.02, sequence=1e-3, context=1e-7)
    points = _points(cost, noise=0.05)
    assert fit(points) == fit(points[::-1])


@pytest.mark.parametrize("missing", ["prompt_tokens", "output_tokens", "concurrency"])
def test_what_cannot_be_told_apart_is_refused(missing: str) -> None:
    """With one length only, or one number at a time, a part of the cost would be guessed."""
    cost = Cost(prompt=1e-3, prompt_squared=0.0, step=0.02, sequence=1e-3, context=0.0)
    points = _points(cost)
    same = getattr(points[0], missing)
    with pytest.raises(ProfileTooSmall, match=missing):
        fit([point for point in points if getattr(point, missing) == same])


def test_as_many_as_keep_both_latencies() -> None:
    """The greatest number up to which every length keeps both; one that is slow for any length ends it."""
    points = [
        _seen(1, 0.1, 0.01),
        _seen(1, 0.2, 0.01),
        _seen(4, 0.5, 0.02),
        _seen(4, 0.9, 0.02),
        _seen(16, 0.8, 0.05),
        _seen(16, 0.8, 0.05),
    ]
    assert most_at_once(points, first_s=1.0, gap_s=0.05) == 16
    assert most_at_once(points, first_s=1.0, gap_s=0.04) == 4
    assert most_at_once(points, first_s=0.7, gap_s=0.05) == 1
    assert most_at_once(points, first_s=0.01, gap_s=0.05) == 0


def test_what_there_was_no_time_for_is_not_taken_for_kept() -> None:
    """Only the longest requests of the mix tell how many at a time keep the latencies: shorter ones are faster."""
    cost = Cost(prompt=1e-3, prompt_squared=1e-8, step=0.02, sequence=1e-3, context=1e-7)

    def at(concurrency: int, prompt: int, output: int, first_s: float) -> Point:
        wall_s = cost.work_s(prompt, output, concurrency)
        lengths = {"prompt_tokens": prompt, "output_tokens": output, "concurrency": concurrency}
        return Point(**lengths, requests=1.0, wall_s=wall_s, first_s=first_s, gap_s=0.05)

    points = [at(n, prompt, output, 0.1) for n in (1, 4, 16) for prompt in (32, 256) for output in (16, 64)]
    points += [at(1, 768, 64, 0.8), at(2, 767, 63, 1.6), at(1, 768, 16, 5.0), at(1, 4000, 64, 5.0)]
    assert measured(points)[1].concurrency == 2
    assert measured([*points, at(4, 770, 64, 1.9)])[1].concurrency == 4
    assert measured([*points, at(4, 770, 64, 2.1), at(8, 770, 64, 1.0)])[1].concurrency == 2


def _seen(at: int, first_s: float, gap_s: float) -> Point:
    return Point(prompt_tokens=1, output_tokens=1, concurrency=at, requests=1, wall_s=1.0, first_s=first_s, gap_s=gap_s)


def _carried(cost: Cost, at: int) -> Carried:
    return Carried(cost=cost, concurrency=at, first_s=1.0, gap_s=0.1)


@given(COSTS, st.integers(1, 64), st.integers(1, 1000))
def test_chunks_are_never_oversold(cost: Cost, at: int, chunks: int) -> None:
    """Whole chunks always have a number of replicas that carries them, and no smaller number does by its slices."""
    carried = _carried(cost, at)
    of_chunk = chunk(carried)
    assert of_chunk * SLICES <= tokens_per_s(carried)
    if of_chunk:
        many = replicas(carried, chunks * of_chunk)
        assert chunks * of_chunk <= many * tokens_per_s(carried)
        assert chunks > (many - 1) * SLICES


def test_a_throughput_between_two_chunks_names_both() -> None:
    """The nearest ones are in the fix."""
    cost = Cost(prompt=1e-4, prompt_squared=0.0, step=0.01, sequence=1e-3, context=0.0)
    carried = _carried(cost, 8)
    one = chunk(carried)
    assert one > 0
    for wrong, below, above in ((one + 1, one, 2 * one), (1, 0, one), (-1, 0, one)):
        with pytest.raises(BadField) as refused:
            replicas(carried, wrong)
        assert f"{below:,} or {above:,}" in refused.value.fix


@given(COSTS, st.integers(1, 4096), st.integers(1, 512), st.integers(1, 64))
def test_more_tokens_are_more_units(cost: Cost, prompt: int, output: int, at: int) -> None:
    """A longer prompt or answer costs more, and output grows faster than in proportion where the context costs."""
    carried = _carried(cost, at)
    assert carried.units(prompt + 1, output) > carried.units(prompt, output)
    assert carried.units(prompt, output + 1) > carried.units(prompt, output)
    assert carried.units(prompt, 2 * output) >= carried.units(prompt, output) * (1.0 - 1e-9)
