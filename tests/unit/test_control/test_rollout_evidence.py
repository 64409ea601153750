"""The sequential test of a rollout: how often it is wrong, and how soon it is right, both computed exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.control.rollouts.evidence import log_evidence
from headrace.control.rollouts.judging import HALF, log_threshold
from headrace.resources.rollouts import RolloutPlan

THRESHOLD = log_threshold(RolloutPlan())
ITS_SHARE = math.exp(-THRESHOLD)
"""Of the false alarms that a rollout may have, what is left to one measure in one stage."""


def boundary(bound: float, requests: int) -> list[int]:
    """After each number of requests, the fewest bad ones that are evidence enough; more of them are more."""
    fewest, found = 0, []
    for trials in range(requests + 1):
        while log_evidence(fewest, trials, bound) < THRESHOLD:
            fewest += 1
        found.append(fewest)
    return found


def alarmed(bound: float, share: float, requests: int) -> list[float]:
    """The probability that a canary has been rolled back by each number of requests, looked at after each of them.

    Exact: the distribution of the number of bad ones among the canaries that were not, carried from request to request.
    """
    limits = boundary(bound, requests)
    waiting = np.zeros(limits[-1] + 2)
    waiting[0] = 1.0
    gone, told = 0.0, [0.0]
    for limit in limits[1:]:
        waiting[1:] = waiting[1:] * (1 - share) + waiting[:-1] * share
        waiting[0] *= 1 - share
        gone += float(waiting[limit:].sum())
        waiting[limit:] = 0.0
        told.append(gone)
    return told


@given(
    bad=st.integers(0, 300),
    good=st.integers(0, 3000),
    bound=st.floats(1e-6, 0.9),
    part=st.floats(0.0, 1.0),
)
def test_it_is_a_supermartingale_while_the_canary_is_within_its_bound(
    bad: int, good: int, bound: float, part: float
) -> None:
    """Whatever was seen, the next request is not expected to add evidence: Ville's inequality needs no more."""
    share, now = bound * part, log_evidence(bad, bad + good, bound)
    after_bad = math.exp(log_evidence(bad + 1, bad + good + 1, bound) - now)
    after_good = math.exp(log_evidence(bad, bad + good + 1, bound) - now)
    assert share * after_bad + (1 - share) * after_good <= 1 + 1e-6
    assert after_bad > after_good, "only a bad request can bring it over the threshold"


@pytest.mark.parametrize("bound", [0.001, 0.01, 0.05, 0.2, HALF])
def test_false_alarms_are_as_rare_as_stated(bound: float) -> None:
    """A canary exactly at its bound, looked at after each of 3,000 requests: the alarms' probability is no more."""
    assert 0 < alarmed(bound, bound, 3000)[-1] <= ITS_SHARE


def test_looking_often_does_not_wear_it_out() -> None:
    """Ten times the requests, each of them looked at, and still at most that; further within, far less."""
    assert alarmed(0.01, 0.01, 30_000)[-1] <= ITS_SHARE
    assert alarmed(0.01, 0.005, 3000)[-1] < ITS_SHARE / 5


def test_a_broken_canary_is_seen_at_once() -> None:
    """All requests fail: after the third of them it goes back; all are slower than the stable model's: after twelve."""
    assert next(n for n, fewest in enumerate(boundary(0.01, 50)) if fewest <= n and n) == 3
    assert next(n for n, fewest in enumerate(boundary(HALF, 50)) if fewest <= n and n) == 12


@pytest.mark.parametrize(
    ("bound", "share", "requests", "at_least"),
    [
        (0.01, 0.5, 15, 0.9),
        (0.01, 0.2, 50, 0.9),
        (0.01, 0.1, 150, 0.9),
        (0.01, 0.05, 500, 0.9),
        (0.05, 0.5, 30, 0.9),
        (0.05, 0.25, 100, 0.9),
        (HALF, 0.9, 50, 0.9),
        (HALF, 0.75, 150, 0.9),
    ],
)
def test_power(bound: float, share: float, requests: int, at_least: float) -> None:
    """A canary that is out of its bound is rolled back within so many requests, with this probability at least."""
    assert alarmed(bound, share, requests)[-1] >= at_least
