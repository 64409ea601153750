"""Where a rate is going, and that replicas that follow it do not flap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.capacity.autoscaling import History, Law, Standing, decide
from headrace.capacity.trend import (
    AHEAD_S,
    MOST_GROWTH,
    UNITS_PER_MINUTE,
    WORK_PERCENT,
    Rate,
    ahead,
    with_rate,
    work_reading,
)

EVERY_S = 5.0
rates_of = st.lists(st.floats(0.0, 1e4), min_size=1, max_size=60)


def looks(series: list[float], *, every_s: float = EVERY_S) -> tuple[Rate, ...]:
    """What is kept after one look after another."""
    kept: tuple[Rate, ...] = ()
    for number, each in enumerate(series):
        kept = with_rate(kept, Rate(1_000.0 + number * every_s, each))
    return kept


def replicas(series: list[float], *, at_first: int = 1) -> list[int]:
    """How many run after each look at such a rate, in full replicas' work, between 1 and 100."""
    kept: tuple[Rate, ...] = ()
    standing, history, counts = Standing(at_first), History(), []
    for number, each in enumerate(series):
        now = 1_000.0 + number * EVERY_S
        kept = with_rate(kept, Rate(now, each * UNITS_PER_MINUTE))
        decision = decide(Law(), standing, history, [work_reading(kept, 0.0)], bounds=(1, 100), now=now)
        standing, history = decision.standing, decision.history
        counts.append(standing.replicas)
    return counts


@given(rates_of)
def test_what_comes_is_never_predicted_to_be_less_nor_more_than_twice(series: list[float]) -> None:
    """Whatever came before."""
    assert series[-1] <= ahead(looks(series)) <= MOST_GROWTH * series[-1]


@given(st.floats(1.0, 1e3), st.lists(st.floats(-0.09, 0.09), min_size=1, max_size=80))
def test_noise_is_no_trend(base: float, noise: list[float]) -> None:
    """Nine per cent either way, in whatever order: what comes is what came."""
    series = [base * (1 + one) for one in noise]
    assert ahead(looks(series)) == series[-1]


@given(st.floats(1.0, 1e3), st.floats(0.25, 1.0))
def test_a_line_goes_on(base: float, slope: float) -> None:
    """A rate that grows by as much every minute is what it will be, counted from the last minute's middle."""
    minutes = [base * (1 + slope * number * EVERY_S / 60) for number in range(25)]
    expected = minutes[-1] + base * slope * (AHEAD_S + 30.0) / 60.0
    assert ahead(looks(minutes)) == pytest.approx(min(expected, MOST_GROWTH * minutes[-1]))


def test_what_was_not_seen_for_long_enough_is_no_trend() -> None:
    """Two minutes have to have been looked at; a gap in them, or a clock that goes back, ends what was known."""
    grows = [10.0 * 1.05**number for number in range(60)]
    assert ahead(looks(grows[:20])) == grows[19]
    assert ahead(looks(grows, every_s=70.0)) == grows[-1]
    kept = with_rate(looks(grows), Rate(0.0, 7.0))
    assert (kept, ahead(kept)) == ((Rate(0.0, 7.0),), 7.0)
    assert ahead(()) == 0.0


@given(
    st.floats(0.0, 20.0),
    st.lists(st.floats(-0.045, 0.045), min_size=10, max_size=200),
    st.integers(1, 30),
)
def test_a_load_that_stays_makes_no_replicas_come_and_go(base: float, noise: list[float], at_first: int) -> None:
    """With noise of four and a half per cent either way: what was taken away once is never brought back."""
    counts = replicas([base * (1 + one) for one in noise], at_first=at_first)
    lowered = False
    for before, after in zip([at_first, *counts], counts, strict=False):
        assert not (lowered and after > before)
        lowered = lowered or after < before


@given(st.integers(1, 30), st.lists(st.floats(-0.045, 0.045), min_size=1, max_size=150))
def test_a_pool_at_its_target_stays_as_it_is(number: int, noise: list[float]) -> None:
    """Though its rate is up to four and a half per cent off."""
    target = number * WORK_PERCENT / 100
    assert set(replicas([target * (1 + one) for one in noise], at_first=number)) == {number}


def test_a_pool_that_does_all_it_carries_grows() -> None:
    """Up to 99 % of what it carries it stays as it is."""
    assert set(replicas([0.98] * 30)) == {1}
    assert replicas([1.0] * 30)[-1] == 2
