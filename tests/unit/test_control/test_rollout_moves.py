"""A rollout's moves: whatever happens in whatever order, its endpoint's traffic is one of a few stated splits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.control.commands import change_rollout, split_traffic, start_rollout
from headrace.control.rollouts.counting import count_requests, tallied
from headrace.control.rollouts.life import advance_rollout
from headrace.control.rollouts.split import stage_split
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import IllegalMove, RolloutRunning
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.rollouts import Rollout, RolloutBounds, RolloutPlan, Tallies, Tally
from headrace.resources.states import OPEN_ROLLOUT, DeploymentState, RolloutState
from headrace.resources.usage import Service, UsageRecord
from headrace.store import Store, Transaction, migrate

BEGAN = 1000.0
_endpoints = itertools.count()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all examples: each has an endpoint of its own."""
    url = f"sqlite:///{tmp_path_factory.mktemp('rollouts')}/headrace.db"
    migrate(url)
    store = Store(url, clock=lambda: BEGAN)
    yield store
    store.close()


class Stage:
    """An endpoint with deployed models that are READY, and a rollout on it.

    Args:
        store: Where.
        before: Percents by name of a deployed model; the one called ``canary`` is that.
        plan: The rollout's.
    """

    def __init__(self, store: Store, before: Mapping[str, int], plan: RolloutPlan) -> None:
        self.store, self.now = store, BEGAN
        self.endpoint = f"e{next(_endpoints)}"
        self.before = {self.id(name): share for name, share in before.items()}
        with store.transaction() as tx:
            tx.insert(Endpoint(scope=DEFAULT_SCOPE, id=self.endpoint, display_name="e", created_at=1.0, updated_at=1.0))
            for name, share in self.before.items():
                _insert_ready(tx, self.endpoint, name, share)
            self.rollout_id = start_rollout(tx, DEFAULT_SCOPE, self.endpoint, self.id("canary"), plan, now=self.now).id

    def id(self, name: str) -> str:
        """Of a deployed model here."""
        return f"{self.endpoint}-{name}"

    @property
    def rollout(self) -> Rollout:
        """As it is stored."""
        with self.store.transaction(read_only=True) as tx:
            found = tx.get(Rollout, scope=DEFAULT_SCOPE, id=self.rollout_id)
        assert found is not None
        return found

    @property
    def traffic(self) -> dict[str, int]:
        """The endpoint's split."""
        with self.store.transaction(read_only=True) as tx:
            return {one.id: one.traffic for one in tx.list(DeployedModel, endpoint_id=self.endpoint)}

    def count(self, *services: Service, of: str = "canary") -> None:
        """Requests were served like this."""
        with self.store.transaction() as tx:
            count_requests(tx, [self.record(of, service) for service in services])

    def record(self, of: str, service: Service | None) -> UsageRecord:
        """A request."""
        return UsageRecord(
            request_id="r",
            at=self.now,
            key_id="k",
            project=DEFAULT_SCOPE.project,
            location=DEFAULT_SCOPE.location,
            endpoint_id=self.endpoint,
            deployed_model_id=self.id(of),
            model_id="m",
            model_version="1",
            service=service,
        )

    def advance(self) -> None:
        """As the reconciler does."""
        with self.store.transaction() as tx:
            advance_rollout(tx, (DEFAULT_SCOPE, self.rollout_id), self.now)

    def change(self, state: RolloutState) -> None:
        """As a person does."""
        with self.store.transaction() as tx:
            change_rollout(tx, DEFAULT_SCOPE, self.rollout_id, state)

    def lose(self, name: str) -> None:
        """Its engines are gone."""
        with self.store.transaction() as tx:
            deployment = tx.get(Deployment, scope=DEFAULT_SCOPE, id=f"d-{self.id(name)}")
            assert deployment is not None
            if deployment.state is DeploymentState.READY:
                tx.move(deployment, DeploymentState.PLACING)

    def timeline(self) -> list[tuple[str, str]]:
        """States and details."""
        with self.store.transaction(read_only=True) as tx:
            return [(move.state, move.detail) for move in tx.timelines.during("rollout", self.rollout_id, 0.0)]


def _insert_ready(tx: Transaction, endpoint_id: str, name: str, share: int) -> None:
    tx.insert(
        Deployment(
            scope=DEFAULT_SCOPE,
            id=f"d-{name}",
            model_id="m",
            model_version="1",
            state=DeploymentState.READY,
            deadline_at=2.0,
            created_at=1.0,
            updated_at=1.0,
        )
    )
    deployed = {"endpoint_id": endpoint_id, "deployment_id": f"d-{name}", "traffic": share, "created_at": 1.0}
    tx.insert(DeployedModel(scope=DEFAULT_SCOPE, id=name, **deployed))


_STAGES = st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(lambda some: tuple(sorted(some)))
_EVENTS = st.lists(
    st.tuples(st.just("served"), st.integers(1, 12))
    | st.tuples(st.just("failed"), st.integers(1, 4))
    | st.tuples(st.just("seconds"), st.integers(1, 20))
    | st.tuples(st.sampled_from([*RolloutState]), st.just(0))
    | st.tuples(st.sampled_from(["lose canary", "lose stable", "split"]), st.just(0)),
    max_size=20,
)


@st.composite
def _splits(draw: st.DrawFn) -> tuple[dict[str, int], tuple[int, ...]]:
    """A split that adds up to 100, and stages of which the first is above what the canary has."""
    stages = draw(_STAGES)
    canary = draw(st.integers(0, min(stages[0] - 1, 99)))
    cuts = sorted(draw(st.lists(st.integers(0, 100 - canary), min_size=2, max_size=2)))
    first, second, third = cuts[0], cuts[1] - cuts[0], 100 - canary - cuts[1]
    return {"a": first, "b": second, "c": third, "canary": canary}, stages


@given(split=_splits(), events=_EVENTS)
@settings(max_examples=40, deadline=None)
def test_whatever_happens_the_traffic_is_a_stated_one(
    store: Store, split: tuple[dict[str, int], tuple[int, ...]], events: list[tuple[Any, int]]
) -> None:
    """It adds up to 100; the canary has what its stage says while the rollout lasts, all once it is promoted; and once
    it is rolled back everybody has exactly what they had. Stages only grow, and what has ended stays as it is."""
    plan = RolloutPlan(stages=split[1], min_requests=10, min_seconds=15.0)
    stage = Stage(store, split[0], plan)
    reached, ended = 0, None
    for event, number in [("nothing", 0), *events]:
        _happen(stage, event, number)
        rollout, traffic = stage.rollout, stage.traffic
        assert sum(traffic.values()) == 100
        assert ended is None or (rollout, traffic) == ended
        if rollout.state in OPEN_ROLLOUT:
            assert traffic[stage.id("canary")] == plan.stages[rollout.stage] == rollout.percent
            assert rollout.stage in {reached, reached + 1}
            reached = rollout.stage
        elif rollout.state is RolloutState.PROMOTED:
            assert traffic[stage.id("canary")] == 100
        else:
            assert traffic == stage.before
        ended = None if rollout.state in OPEN_ROLLOUT else (rollout, traffic)


def _happen(stage: Stage, event: Any, number: int) -> None:
    is_open = stage.rollout.state in OPEN_ROLLOUT
    if event in {"served", "failed"}:
        stage.count(*[Service(failed=event == "failed")] * number)
        stage.advance()
    elif event == "seconds":
        stage.now += number
        stage.advance()
    elif event in {"lose canary", "lose stable"}:
        for name in ["canary"] if event == "lose canary" else ["a", "b", "c"]:
            stage.lose(name)
        stage.advance()
    elif event == "split" and is_open:
        with pytest.raises(RolloutRunning), stage.store.transaction() as tx:
            split_traffic(tx, DEFAULT_SCOPE, stage.endpoint, {stage.id("a"): 100})
    elif isinstance(event, RolloutState) and (is_open or event is stage.rollout.state):
        stage.change(event)
    elif isinstance(event, RolloutState):
        with pytest.raises(IllegalMove):
            stage.change(event)


@given(split=_splits(), percent=st.integers(1, 100))
def test_a_stages_split_leaves_the_others_in_proportion(
    split: tuple[dict[str, int], tuple[int, ...]], percent: int
) -> None:
    """To the percent: nobody is off by a whole one from what is due to them, and who had nothing gets nothing."""
    before, _ = split
    others = {name: share for name, share in before.items() if name != "canary" and share}
    after = stage_split(before, "canary", percent)
    assert (sum(after.values()), after["canary"], set(after)) == (100, percent, {*others, "canary"})
    for name, share in others.items():
        assert abs(after[name] - share * (100 - percent) / sum(others.values())) < 1


PLAN = RolloutPlan(stages=(5, 50), min_requests=10, min_seconds=60.0)
SERVED = Service(first_token_s=0.1, inter_token_s=0.01)


def test_a_stage_takes_both_its_requests_and_its_time(store: Store) -> None:
    """One without the other is not enough; after the last stage the canary has all of it, and the timeline says why."""
    stage = Stage(store, {"a": 100, "canary": 0}, PLAN)
    stage.now += 100
    stage.advance()
    assert stage.rollout.stage == 0
    stage.count(*[SERVED] * 10)
    stage.advance()
    assert (stage.rollout.stage, stage.traffic[stage.id("canary")]) == (1, 50)
    stage.count(*[SERVED] * 100)
    stage.advance()
    assert stage.rollout.state is RolloutState.RUNNING
    stage.now += 60
    stage.advance()
    assert (stage.rollout.state, stage.rollout.failure) == (RolloutState.PROMOTED, None)
    assert stage.traffic == {stage.id("a"): 0, stage.id("canary"): 100}
    told = [detail for _, detail in stage.timeline()]
    assert told[1] == "5 % from now on. Stages: 5 %, 50 %; each 10 requests and 60 s."
    assert told[2].startswith("5 % passed: 10 requests, 0 failed (stable: 0 of 0), first token 100 ms, between tokens")
    assert told[2].endswith("50 % from now on.")
    assert told[3].endswith("All traffic is the canary's.")


def test_what_fails_goes_back_and_says_why(store: Store) -> None:
    """Three of three: in the first stage, long before its requests and its time are over."""
    stage = Stage(store, {"a": 60, "b": 40, "canary": 0}, PLAN)
    stage.count(*[Service(failed=True)] * 3)
    stage.advance()
    assert stage.rollout.state is RolloutState.ROLLED_BACK
    assert stage.traffic == {stage.id("a"): 60, stage.id("b"): 40, stage.id("canary"): 0}
    failure = stage.rollout.failure
    assert failure is not None
    assert failure.code == "CANARY_OUT_OF_BOUNDS"
    assert "At 5 % of the traffic" in failure.message
    assert "3 of 3 requests failed, where 1 % may" in failure.message
    assert "probability of at most" in failure.evidence


def test_what_is_slow_goes_back(store: Store) -> None:
    """By a limit in seconds, or against the stable model's stream before it; of each only where it is a stream."""
    limited = RolloutPlan(bounds=RolloutBounds(inter_token_s=0.02))
    for plan, measure in ((limited, "between tokens than 20 ms"), (PLAN, "to begin than 1.5 times the stable model's")):
        stage = Stage(store, {"a": 100, "canary": 0}, plan)
        for _ in range(14):
            stage.count(Service())
            stage.count(SERVED, of="a")
            stage.count(Service(first_token_s=0.16, inter_token_s=0.03 if plan is limited else 0.01))
        stage.advance()
        failure = stage.rollout.failure
        assert failure is not None
        assert measure in failure.message
        assert "failed" not in failure.message


def test_doubt_holds_a_stage(store: Store) -> None:
    """More failed than may, and not enough to be sure: it neither goes on nor back until more was seen; told once."""
    stage = Stage(store, {"a": 100, "canary": 0}, PLAN)
    stage.now += 60
    stage.count(Service(failed=True), *[SERVED] * 20)
    for _ in range(3):
        stage.advance()
        stage.count(SERVED)
    assert stage.rollout.stage == 0
    assert [detail for _, detail in stage.timeline()][2:] == ["Held at 5 %: 1 of 21 requests failed, where 1 % may."]
    stage.count(*[SERVED] * 100)
    stage.advance()
    assert stage.rollout.stage == 1


def test_a_pause_keeps_the_stage_and_the_watch(store: Store) -> None:
    """Paused, it does not go on, however much it has seen; resumed, it does. Out of its bounds it goes back even so."""
    stage = Stage(store, {"a": 100, "canary": 0}, PLAN)
    stage.change(RolloutState.PAUSED)
    stage.now += 60
    stage.count(*[SERVED] * 50)
    stage.advance()
    assert (stage.rollout.state, stage.rollout.stage) == (RolloutState.PAUSED, 0)
    stage.change(RolloutState.RUNNING)
    stage.advance()
    assert stage.rollout.stage == 1
    stage.change(RolloutState.PAUSED)
    stage.count(*[Service(failed=True)] * 5)
    stage.advance()
    assert stage.rollout.state is RolloutState.ROLLED_BACK


def test_a_canary_that_is_lost_goes_back_unless_all_is_lost(store: Store) -> None:
    """Where nothing answers, as after a restart of the machine, it is nobody's fault and nothing moves."""
    stage = Stage(store, {"a": 100, "canary": 0}, PLAN)
    stage.lose("a")
    stage.lose("canary")
    stage.advance()
    assert stage.rollout.state is RolloutState.RUNNING
    stage = Stage(store, {"a": 100, "canary": 0}, PLAN)
    stage.lose("canary")
    stage.advance()
    failure = stage.rollout.failure
    assert failure is not None
    assert (failure.code, stage.rollout.state) == ("CANARY_LOST", RolloutState.ROLLED_BACK)
    assert "PLACING" in failure.evidence


def test_only_its_own_requests_count(store: Store) -> None:
    """Not another endpoint's, not those of the stage before, not those that nobody watched."""
    stage, other = (Stage(store, {"a": 100, "canary": 0}, PLAN) for _ in range(2))
    other.count(*[SERVED] * 5)
    assert stage.rollout.tallies == Tallies()
    stage.now -= 1
    stage.count(*[SERVED] * 5)
    stage.now += 1
    with store.transaction() as tx:
        assert not count_requests(tx, [stage.record("canary", None)])
    assert stage.rollout.tallies == Tallies()
    stage.count(SERVED)
    assert stage.rollout.tallies.errors.trials == 1


def test_a_client_that_left_is_a_lower_bound() -> None:
    """Of the canary it counts as having waited so long; the stable model's would be too strict a limit, and is none."""
    absolute, relative = RolloutBounds(first_token_s=1.0), RolloutBounds()
    left = Service(first_token_s=2.0, abandoned=True)
    assert tallied(Tallies(), left, absolute, canary=True).first_token.bad == 1
    tallies = tallied(Tallies(), left, relative, canary=False)
    assert tallies.first_token == Tally()
    tallies = tallied(tallies, Service(first_token_s=1.0), relative, canary=False)
    tallies = tallied(tallies, left, relative, canary=True)
    assert (tallies.first_token.trials, tallies.first_token.bad) == (1, 1)
    tallies = tallied(tallies, left, relative, canary=True)
    assert tallies.first_token.trials == 1, "each of the stable model's is held against one of the canary's"
