"""The autoscaler's law: what it promises whatever the metrics do."""

from __future__ import annotations

import math
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from headrace.capacity.autoscaling import Decision, History, Law, Reading, Standing, decide, needed
from headrace.resources.autoscaling import Metric

LAW = Law()
EVERY_S = 5.0
TARGET = 10

totals = st.floats(min_value=0.0, max_value=400.0)
bounds_of = st.tuples(st.integers(1, 6), st.integers(0, 12)).map(lambda both: (both[0], both[0] + both[1]))


def load(total: float, *, whole: bool = True) -> Reading:
    """Requests per minute of all replicas."""
    return Reading(Metric.REQUESTS, total, TARGET, whole)


def play(
    readings: list[list[Reading]],
    *,
    replicas: int = 1,
    bounds: tuple[int, int] = (1, 20),
    law: Law = LAW,
    every_s: float = EVERY_S,
) -> list[Decision]:
    """One look after another, each going on from what the last one decided."""
    standing, history, made = Standing(replicas), History(), []
    for number, each in enumerate(readings):
        made.append(decide(law, standing, history, each, bounds=bounds, now=1_000.0 + number * every_s))
        standing, history = made[-1].standing, made[-1].history
    return made


def counts(made: list[Decision]) -> list[int]:
    """How many were to run after each."""
    return [one.standing.replicas for one in made]


@given(st.lists(st.lists(totals, max_size=3), min_size=1, max_size=80), st.integers(0, 40), bounds_of)
def test_the_bounds_always_hold(series: list[list[float]], replicas: int, bounds: tuple[int, int]) -> None:
    """Whatever was there before and whatever the metrics say, also none; and what is needed is told within them."""
    made = play([[load(each) for each in one] for one in series], replicas=replicas, bounds=bounds)
    assert all(bounds[0] <= one.standing.replicas <= bounds[1] for one in made)
    assert all(bounds[0] <= one.needed <= bounds[1] for one in made)


@given(st.lists(totals, min_size=1, max_size=80), st.floats(0.0, 100.0), st.integers(1, 20))
def test_more_load_never_means_fewer_replicas(series: list[float], more: float, replicas: int) -> None:
    """From the same beginning, each count that the larger load needs is at least what the smaller one needs."""
    for total in series:
        assert needed(load(total), replicas, LAW.tolerance) <= needed(load(total + more), replicas, LAW.tolerance)
    history = History()
    for number, total in enumerate(series[:-1]):
        history = decide(LAW, Standing(replicas), history, [load(total)], bounds=(1, 20), now=number * EVERY_S).history
    now = len(series) * EVERY_S
    small, large = (
        decide(LAW, Standing(replicas), history, [load(total)], bounds=(1, 20), now=now).standing.replicas
        for total in (series[-1], series[-1] + more)
    )
    assert small <= large


@given(st.integers(1, 20), st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=200))
def test_noise_within_the_tolerance_changes_nothing(replicas: int, noise: list[float]) -> None:
    """A load that is a tenth off its target at most, either way and for however long, leaves the number as it is."""
    series = [[load(TARGET * replicas * (1 + LAW.tolerance * 0.999 * one))] for one in noise]
    assert set(counts(play(series, replicas=replicas))) == {replicas}


@given(st.lists(totals, min_size=2, max_size=150), st.integers(1, 20))
def test_the_rate_limits_hold(series: list[float], replicas: int) -> None:
    """Two raises, and any change and the lowering after it, are as far apart as they must be; none is too large."""
    made = play([[load(each)] for each in series], replicas=replicas)
    raised_at = changed_at = -math.inf
    before = replicas
    for number, after in enumerate(counts(made)):
        now = number * EVERY_S
        if after > before:
            assert now - raised_at >= LAW.raise_every_s
            assert after <= LAW.most_after(before)
            raised_at = changed_at = now
        elif after < before:
            assert now - changed_at >= LAW.lower_every_s
            assert after >= LAW.fewest_after(before)
            changed_at = now
        before = after


@given(
    st.lists(st.tuples(totals, st.booleans()), min_size=1, max_size=120),
    st.lists(totals, min_size=1, max_size=120),
    st.integers(1, 20),
)
def test_a_metric_that_is_not_known_takes_nothing_away(
    partly: list[tuple[float, bool]], other: list[float], replicas: int
) -> None:
    """Not for as long as one of them is not whole, whatever the others say; nor where there is none at all."""
    series = [[load(total, whole=False), load(also)] for (total, _), also in zip(partly, other, strict=False)]
    told = counts(play(series, replicas=replicas))
    assert told == sorted(told)
    assert counts(play([[] for _ in partly], replicas=replicas)) == [replicas] * len(partly)


@given(st.lists(st.one_of(st.none(), totals), min_size=62, max_size=150), st.integers(2, 20))
def test_fewer_run_only_after_all_of_the_time_in_which_fewer_were_enough(
    series: list[float | None], replicas: int
) -> None:
    """Whenever the number falls, every look of the window before it had needed no more than what is left, and there
    was one at least every 30 s."""
    steps = [(number * EVERY_S, total) for number, total in enumerate(series) if total is not None]
    standing, history, seen = Standing(replicas), History(), []
    for now, total in steps:
        decision = decide(LAW, standing, history, [load(total)], bounds=(1, 20), now=now)
        seen.append((now, decision.needed))
        if decision.standing.replicas < standing.replicas:
            window = [(at, count) for at, count in seen if at >= now - LAW.lower_after_s]
            assert all(count <= decision.standing.replicas for _, count in window)
            assert window[0][0] <= now - LAW.lower_after_s + EVERY_S * 6
        standing, history = decision.standing, decision.history


def test_one_spike_starts_nothing_and_a_load_that_stays_does() -> None:
    """Twelve times the load for one look is noise; for three of them, which is ten seconds, it is not."""
    quiet, loud = [load(TARGET)], [load(12 * TARGET)]
    assert set(counts(play([quiet, quiet, quiet, loud, quiet, quiet]))) == {1}
    assert counts(play([quiet, quiet, loud, loud, loud, loud]))[-2:] == [3, 3]


def test_a_large_load_is_met_step_by_step_and_left_step_by_step() -> None:
    """From one replica to twelve by three, six, twelve; down again no sooner than five minutes after the last need."""
    made = counts(play([[load(12 * TARGET)]] * 30 + [[load(TARGET)]] * 120))
    assert [count for count, _ in groupby(made)] == [1, 3, 6, 12, 6, 3, 2, 1]
    assert made[29 + 59] == 12, "295 s after the last need"


def test_the_metric_that_needs_most_decides() -> None:
    """One at its target does not hold back another that is over its own; and it is the one that is told."""
    waiting = Reading(Metric.WAITING, 40.0, 4)
    (*_, last) = play([[load(TARGET), waiting]] * 8)
    assert (last.needed, last.by) == (10, waiting)


def test_a_break_is_forgotten_and_so_is_a_clock_that_goes_back() -> None:
    """After a minute without a look, or where time went back, what was needed before counts for nothing."""
    loud = [load(12 * TARGET)]
    for now in (1_060.0, 900.0):
        first = decide(LAW, Standing(1), History(), loud, bounds=(1, 20), now=1_000.0)
        second = decide(LAW, first.standing, first.history, loud, bounds=(1, 20), now=now)
        assert (second.standing.replicas, second.history.began_at) == (1, now)
