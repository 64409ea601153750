"""What follows from what a stage has seen: stay, go on, or go back. Decided from a rollout's row and the time alone."""

from __future__ import annotations

import math
from enum import Enum

import msgspec

from headrace.control.rollouts.evidence import log_evidence
from headrace.resources.errors import CanaryOutOfBounds, Failure
from headrace.resources.rollouts import Measure, Rollout, RolloutBounds, RolloutPlan
from headrace.resources.states import RolloutState

HALF = 0.5
"""How many of a canary's latencies may be longer than so many times the stable model's: no more than half. Of two equal
models each is the slower one in half of all pairs at most."""

_WHAT = {
    Measure.ERRORS: "requests failed",
    Measure.FIRST_TOKEN: "streams took longer to begin than",
    Measure.INTER_TOKEN: "streams took longer between tokens than",
}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one measure says.

    Attributes:
        bound: The largest share of trials that may be bad.
        log_evidence: Natural logarithm of the evidence that more are.
        log_threshold: What it has to reach for the canary to be rolled back.
        limit: What a latency is bad beyond, in words; empty of errors.
    """

    measure: Measure
    trials: int
    bad: int
    bound: float
    log_evidence: float
    log_threshold: float
    limit: str

    @property
    def out_of_bounds(self) -> bool:
        """Whether it is all but certain that more are bad than may be."""
        return self.log_evidence >= self.log_threshold

    @property
    def doubtful(self) -> bool:
        """Whether more were bad than may be; that may still be chance."""
        return self.bad > self.bound * self.trials

    def told(self) -> str:
        """In words, for a timeline."""
        what = f"{_WHAT[self.measure]} {self.limit}".rstrip()
        return f"{self.bad} of {self.trials} {what}, where {100 * self.bound:g} % may"


class Step(Enum):
    """What a rollout does next."""

    STAY = "stay"
    GO_ON = "go on"
    GO_BACK = "go back"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do.

    Attributes:
        why: A sentence for a person.
        held: Whether it stays although it has seen enough requests for long enough.
        due_at: When to look again even if no request comes; None: only requests can change anything.
        failure: Why it goes back.
    """

    step: Step
    why: str = ""
    held: bool = False
    due_at: float | None = None
    failure: Failure | None = None


def decide(rollout: Rollout, now: float) -> Decision:
    """What a rollout that is under way does at this time, with what it has seen."""
    found = verdicts(rollout)
    guilty = [verdict for verdict in found if verdict.out_of_bounds]
    if guilty:
        return _back(rollout, guilty)
    if rollout.state is RolloutState.PAUSED:
        return Decision(step=Step.STAY, why="Paused.")
    plan, requests = rollout.plan, rollout.tallies.errors.trials
    over_at = rollout.stage_began_at + plan.min_seconds
    if requests < plan.min_requests:
        return Decision(step=Step.STAY, why=f"{requests} of {plan.min_requests} requests.")
    if now < over_at:
        waited = f"{now - rollout.stage_began_at:.0f} of {plan.min_seconds:.0f} s."
        return Decision(step=Step.STAY, why=waited, due_at=over_at)
    doubts = [verdict.told() for verdict in found if verdict.doubtful]
    if doubts:
        return Decision(step=Step.STAY, why=f"Held at {rollout.percent} %: {'; '.join(doubts)}.", held=True)
    return Decision(step=Step.GO_ON, why=seen(rollout))


def _back(rollout: Rollout, guilty: list[Verdict]) -> Decision:
    told = "; ".join(verdict.told() for verdict in guilty)
    strongest = max(guilty, key=lambda verdict: verdict.log_evidence)
    error = CanaryOutOfBounds(
        f"At {rollout.percent} % of the traffic the canary left its bounds: {told}.",
        evidence=f"Within them, so much against it would be seen with a probability of at most "
        f"{math.exp(-min(strongest.log_evidence, 300.0)):.1e}. {seen(rollout)}",
        fix="Look at the canary's engine (`headrace logs`), mend it, and start another rollout.",
    )
    return Decision(step=Step.GO_BACK, why="Rolled back: the traffic is as it was before.", failure=error.failure)


def verdicts(rollout: Rollout) -> list[Verdict]:
    """What each measure says, of the stage that the rollout is in."""
    plan = rollout.plan
    found = []
    for measure in Measure:
        tally, bound = rollout.tallies.of(measure), _bound(plan.bounds, measure)
        found.append(
            Verdict(
                measure=measure,
                trials=tally.trials,
                bad=tally.bad,
                bound=bound,
                log_evidence=log_evidence(tally.bad, tally.trials, bound),
                log_threshold=log_threshold(plan),
                limit=_limit(plan.bounds, measure),
            )
        )
    return found


def log_threshold(plan: RolloutPlan) -> float:
    """What the evidence of a measure in a stage has to reach: each has an even part of the rollout's false alarms."""
    return math.log(len(plan.stages) * len(Measure) / plan.false_alarms)


def seen(rollout: Rollout) -> str:
    """What a stage has seen of both sides, for a person."""
    errors = rollout.tallies.errors
    failed = f"{errors.canary.count:,} requests, {errors.canary.total:.0f} failed"
    told = [f"{failed} (stable: {errors.stable.total:.0f} of {errors.stable.count:,})"]
    for measure, name in ((Measure.FIRST_TOKEN, "first token"), (Measure.INTER_TOKEN, "between tokens")):
        tally = rollout.tallies.of(measure)
        if tally.canary.mean is not None:
            beside = "" if tally.stable.mean is None else f" (stable: {_duration(tally.stable.mean)})"
            told.append(f"{name} {_duration(tally.canary.mean)}{beside}")
    return ", ".join(told) + "."


def _bound(bounds: RolloutBounds, measure: Measure) -> float:
    if measure is Measure.ERRORS:
        return bounds.error_rate
    return HALF if bounds.limit_s(measure) is None else bounds.slow_share


def _limit(bounds: RolloutBounds, measure: Measure) -> str:
    if measure is Measure.ERRORS:
        return ""
    limit_s = bounds.limit_s(measure)
    return f"{bounds.times_stable:g} times the stable model's" if limit_s is None else _duration(limit_s)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
