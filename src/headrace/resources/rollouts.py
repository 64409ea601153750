"""Rollouts: a new deployed model gets an endpoint's traffic in stages, while what it does to requests is watched."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from headrace.resources.errors import Failure
from headrace.resources.names import Scope
from headrace.resources.states import RolloutState


class Measure(StrEnum):
    """What is watched. Each request of the canary is one trial of a measure, and in or out of its limit."""

    ERRORS = "errors"
    FIRST_TOKEN = "first_token"  # noqa: S105 - of a model's answer
    INTER_TOKEN = "inter_token"  # noqa: S105 - as above


class RolloutBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the canary's requests may be out of their limits.

    Attributes:
        error_rate: The largest share of requests that may fail.
        first_token_s: A stream whose first token takes longer is slow. None: one that takes longer than `times_stable`
            times as long as the stable model's stream before it.
        inter_token_s: As `first_token_s`, of the mean time between a stream's pieces.
        slow_share: The largest share of streams that may be slow, where a limit in seconds is given: 0.05 holds the
            95th percentile below it.
        times_stable: See `first_token_s`. No more than half of the streams may be slow by it.
    """

    error_rate: float = 0.01
    first_token_s: float | None = None
    inter_token_s: float | None = None
    slow_share: float = 0.05
    times_stable: float = 1.5

    def limit_s(self, measure: Measure) -> float | None:
        """The limit of a latency in seconds; None where it is held against the stable model's."""
        return {Measure.FIRST_TOKEN: self.first_token_s, Measure.INTER_TOKEN: self.inter_token_s}.get(measure)


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout goes on, and when it goes back.

    Attributes:
        stages: Percent of the endpoint's requests that the canary gets, growing; after the last one it gets all.
        min_requests: Requests of the canary that a stage needs.
        min_seconds: How long a stage takes at least.
        false_alarms: The largest probability that a canary within all its bounds is rolled back all the same, in the
            whole rollout.
    """

    stages: tuple[int, ...] = (5, 25, 50, 100)
    min_requests: int = 100
    min_seconds: float = 60.0
    bounds: RolloutBounds = RolloutBounds()
    false_alarms: float = 0.01


class Mean(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one side, for people: the test needs none of it.

    Attributes:
        total: Of failed requests their number, of latencies their seconds.
    """

    count: int = 0
    total: float = 0.0

    def with_one(self, value: float) -> Mean:
        """And one more."""
        return Mean(count=self.count + 1, total=self.total + value)

    @property
    def mean(self) -> float | None:
        """None of nothing."""
        return self.total / self.count if self.count else None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What one measure came to in a stage.

    Attributes:
        trials: Requests of the canary that were held against the limit.
        bad: How many of them were out of it.
        unpaired_s: The stable model's newest latency that no request of the canary was held against yet.
    """

    trials: int = 0
    bad: int = 0
    canary: Mean = Mean()
    stable: Mean = Mean()
    unpaired_s: float | None = None


class Tallies(msgspec.Struct, frozen=True, kw_only=True):
    """Those of all measures."""

    errors: Tally = Tally()
    first_token: Tally = Tally()
    inter_token: Tally = Tally()

    def of(self, measure: Measure) -> Tally:
        """That of one."""
        tally = getattr(self, measure)
        assert isinstance(tally, Tally)
        return tally


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One canary's way to an endpoint's traffic, or back.

    Attributes:
        deployed_model_id: The canary.
        stage: Where in the plan's stages it is.
        stage_began_at: Unix seconds; requests that were over before do not count.
        traffic_before: The endpoint's split when it began, without those that had nothing: what a rollback restores.
        tallies: Of this stage.
        failure: Why it was rolled back, where the canary is at fault.
    """

    scope: Scope
    id: str
    endpoint_id: str
    deployed_model_id: str
    plan: RolloutPlan
    state: RolloutState = RolloutState.RUNNING
    stage: int = 0
    stage_began_at: float
    traffic_before: dict[str, int]
    tallies: Tallies = Tallies()
    failure: Failure | None = None
    created_at: float
    updated_at: float
    resource_version: int = 1

    @property
    def name(self) -> str:
        """Full resource name."""
        return self.scope.name("rollouts", self.id)

    @property
    def percent(self) -> int:
        """What the canary gets in this stage; once it has ended, what it was left with."""
        if self.state is RolloutState.PROMOTED:
            return 100
        if self.state is RolloutState.ROLLED_BACK:
            return self.traffic_before.get(self.deployed_model_id, 0)
        return self.plan.stages[self.stage]
