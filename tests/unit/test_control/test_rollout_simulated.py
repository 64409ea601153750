"""Rollouts by the thousand, simulated: good canaries go on, bad ones go back. All of it is seeded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from headrace.control.rollouts.counting import tallied
from headrace.control.rollouts.evidence import log_evidence
from headrace.control.rollouts.judging import HALF, Step, decide, log_threshold
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.rollouts import Measure, Rollout, RolloutPlan, Tallies
from headrace.resources.usage import Service

BEGAN = 1000.0

SIMULATED = RolloutPlan(stages=(5, 25, 50, 100), min_requests=100, min_seconds=0.0, false_alarms=0.05)
BOUNDS = {Measure.ERRORS: 0.01, Measure.FIRST_TOKEN: 0.05, Measure.INTER_TOKEN: HALF}
"""The last one is held against the stable model's streams, the one before against a limit in seconds."""


def _stage_of(random: np.random.Generator, shares: Mapping[Measure, float], most: int = 300) -> str:
    """One stage with so many bad requests of each measure, looked at after each of them: passed, alarm, or held.

    Only a bad request can bring an alarm (`test_rollout_evidence` holds it), so these are all the looks that matter;
    and none can while no more are bad than may be.
    """
    threshold, looked = log_threshold(SIMULATED), 0
    bad = {measure: np.flatnonzero(random.random(most) < share) + 1 for measure, share in shares.items()}
    for until in range(SIMULATED.min_requests, most + 1, 50):
        for measure, places in bad.items():
            bound = BOUNDS[measure]
            for number, place in enumerate(map(int, places[places <= until]), start=1):
                if place > looked and number > bound * place and log_evidence(number, place, bound) >= threshold:
                    return "alarm"
        looked = until
        if all(np.count_nonzero(places <= until) <= BOUNDS[measure] * until for measure, places in bad.items()):
            return "passed"
    return "held"


def _ends(random: np.random.Generator, shares: Mapping[Measure, float]) -> str:
    for _ in SIMULATED.stages:
        end = _stage_of(random, shares)
        if end != "passed":
            return end
    return "promoted"


def test_thousands_of_good_canaries_are_hardly_ever_rolled_back() -> None:
    """2,000 rollouts of canaries that are exactly at all three of their bounds, where false alarms are the most."""
    random = np.random.default_rng(20)
    ends = [_ends(random, BOUNDS) for _ in range(2000)]
    assert ends.count("alarm") <= 2000 * SIMULATED.false_alarms
    random = np.random.default_rng(21)
    usual = {Measure.ERRORS: 0.001, Measure.FIRST_TOKEN: 0.01, Measure.INTER_TOKEN: 0.2}
    ends = [_ends(random, usual) for _ in range(1000)]
    assert (ends.count("alarm"), ends.count("promoted") >= 990) == (0, True)


@pytest.mark.parametrize(
    "shares",
    [
        {Measure.ERRORS: 0.2, Measure.FIRST_TOKEN: 0.01, Measure.INTER_TOKEN: 0.2},
        {Measure.ERRORS: 0.001, Measure.FIRST_TOKEN: 0.3, Measure.INTER_TOKEN: 0.2},
        {Measure.ERRORS: 0.001, Measure.FIRST_TOKEN: 0.01, Measure.INTER_TOKEN: 0.9},
    ],
)
def test_a_canary_that_is_worse_in_one_thing_is_rolled_back(shares: dict[Measure, float]) -> None:
    """500 rollouts of each: all of them, and none gets past its first stage before."""
    random = np.random.default_rng(22)
    assert {_stage_of(random, shares) for _ in range(500)} == {"alarm"}


@pytest.mark.parametrize(("slower", "step"), [(1.0, Step.GO_ON), (3.0, Step.GO_BACK)])
def test_latencies_that_vary_are_told_apart_only_by_what_they_differ_in(slower: float, step: Step) -> None:
    """Request by request through all of it: an equal canary goes on, one that takes three times as long goes back."""
    random = np.random.default_rng(23)
    for _ in range(40):
        rollout, decision = _rollout(), None
        for first, gap, stable_first, stable_gap in random.lognormal(-2.0, 0.5, (100, 4)):
            stable = Service(first_token_s=stable_first, inter_token_s=stable_gap)
            canary = Service(first_token_s=first * slower, inter_token_s=gap)
            tallies = tallied(rollout.tallies, stable, rollout.plan.bounds, canary=False)
            rollout = _rollout(tallied(tallies, canary, rollout.plan.bounds, canary=True))
            decision = decide(rollout, BEGAN)
            if decision.step is Step.GO_BACK:
                break
        assert decision is not None
        assert decision.step is step


def _rollout(tallies: Tallies | None = None) -> Rollout:
    """In the first stage."""
    return Rollout(
        scope=DEFAULT_SCOPE,
        id="r",
        endpoint_id="e",
        deployed_model_id="canary",
        plan=SIMULATED,
        stage_began_at=BEGAN,
        traffic_before={"a": 100},
        tallies=tallies or Tallies(),
        created_at=BEGAN,
        updated_at=BEGAN,
    )
