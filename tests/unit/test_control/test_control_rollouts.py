"""A rollout by control as a whole: from what gateways wrote down to what they route by, whatever is restarted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from scripted import World, failure

from headrace.control import UsageIngester
from headrace.control.commands import (
    change_rollout,
    delete_endpoint,
    split_traffic,
    start_rollout,
    undeploy,
)
from headrace.control.commands.rollout import check_plan
from headrace.gateway.usage_log import UsageLog
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import (
    BadField,
    EndpointNotFound,
    EngineDied,
    RolloutNotFound,
    RolloutRefused,
    RolloutRunning,
)
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.operations import Operation
from headrace.resources.rollouts import Rollout, RolloutBounds, RolloutPlan
from headrace.resources.states import RolloutState
from headrace.resources.usage import Service, UsageBy, UsageRecord

PLAN = RolloutPlan(stages=(10, 50), min_requests=10, min_seconds=5.0)


def _two(world: World, **canary: object) -> None:
    """A stable model that is READY, and a canary without traffic beside it that is, too."""
    world.node.memory_bytes *= 4
    world.deploy(endpoint_id="chat")
    asyncio.run(world.until_state("READY"))
    asyncio.run(world.turns(6))  # until its operation has ended
    world.deploy(endpoint_id="chat", no_traffic=True, **canary)
    asyncio.run(world.until_state("READY"))


def _start(world: World, plan: RolloutPlan = PLAN, model: str = "") -> Rollout:
    rollout = world.write(lambda tx: start_rollout(tx, DEFAULT_SCOPE, "chat", model, plan, now=world.clock.now))
    assert isinstance(rollout, Rollout)
    return rollout


def _rollout(world: World) -> Rollout:
    (rollout,) = world.rows(Rollout)
    assert isinstance(rollout, Rollout)
    return rollout


def _traffic(world: World) -> list[int]:
    """Of the stable model and the canary, as it is stored."""
    return [one.traffic for one in world.rows(DeployedModel)]


def _routed(world: World) -> list[tuple[int, bool]]:
    """Traffic by deployed model as the gateway knows it, and whether it is watched."""
    (endpoint,) = world.gateway.snapshot.endpoints
    return [(route.traffic, route.watched) for route in endpoint.deployed]


class Served:
    """Requests as gateways write them down, of which each takes a while."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.ingester = UsageIngester(world.store, folder, watched=world.reconciler.wake)
        self.logs = [UsageLog(folder), UsageLog(folder)]
        self.deployed = [one.id for one in world.rows(DeployedModel)]

    def __call__(self, number: int, service: Service, *, of: int = 1) -> None:
        """So many requests to the stable model (0) or the canary (1), by two gateways in turns; all are taken in."""
        for count in range(number):
            self.logs[count % 2].append(_record(self.world.clock.now, self.deployed[of], service))
        self.ingester.ingest()


def _record(at: float, deployed_model_id: str, service: Service | None, *, sent: bool = True) -> UsageRecord:
    return UsageRecord(
        request_id="r",
        at=at,
        key_id="k",
        project=DEFAULT_SCOPE.project,
        location=DEFAULT_SCOPE.location,
        endpoint_id="chat",
        deployed_model_id=deployed_model_id,
        model_id="m",
        model_version="1",
        service=service,
        sent=sent,
    )


def test_a_canary_has_no_traffic_until_its_rollout_begins(world: World) -> None:
    """It becomes READY beside the stable model, whose traffic stays; an endpoint without a rollout is not watched."""
    _two(world)
    assert _traffic(world) == [100, 0]
    asyncio.run(world.turns(10))
    assert _routed(world) == [(100, False), (0, False)]
    assert [operation.state for operation in world.rows(Operation)] == ["SUCCEEDED"] * 2


def test_a_good_canary_goes_through_its_stages(world: World, tmp_path: Path) -> None:
    """The gateway is told of each, and of its end; a control that is restarted goes on where the last one was."""
    _two(world)
    _start(world)
    asyncio.run(world.turns(2))
    assert _routed(world) == [(90, True), (10, True)]
    served = Served(world, tmp_path / "usage")
    served(6, Service())
    world.restart_control()
    served(4, Service())
    asyncio.run(world.until(lambda: _routed(world) == [(50, True), (50, True)]))
    world.restart_control()
    Served(world, tmp_path / "usage")(10, Service())
    asyncio.run(world.until(lambda: _rollout(world).state == "PROMOTED"))
    asyncio.run(world.turns(2))
    assert _routed(world) == [(0, False), (100, False)]
    assert world.states(_rollout(world).id, "rollout") == ["RUNNING", "PROMOTED"]


def test_a_stage_ends_with_its_time_though_nothing_comes(world: World, tmp_path: Path) -> None:
    """Who has seen enough requests waits for the time alone: the reconciler knows when to look again."""
    _two(world)
    _start(world)
    Served(world, tmp_path / "usage")(10, Service())
    due_at = asyncio.run(world.reconciler.reconcile_once())
    assert due_at == _rollout(world).stage_began_at + PLAN.min_seconds


def test_a_bad_canary_goes_back(world: World, tmp_path: Path) -> None:
    """Failures of all gateways count together; the gateway has the old split with its next snapshot."""
    _two(world)
    _start(world)
    served = Served(world, tmp_path / "usage")
    served(50, Service(), of=0)
    served(1, Service(failed=True))
    asyncio.run(world.turn())
    assert _rollout(world).state == "RUNNING", "one may be chance"
    served(2, Service(failed=True))
    asyncio.run(world.turns(2))
    assert (_rollout(world).state, _routed(world)) == ("ROLLED_BACK", [(100, False), (0, False)])
    failed = _rollout(world).failure
    assert failed is not None
    assert failed.code == "CANARY_OUT_OF_BOUNDS"
    assert "(stable: 0 of 50)" in failed.evidence


def test_a_canary_whose_engine_dies_goes_back(world: World) -> None:
    """Without a request having been lost by it yet; the reason is the engine's."""
    _two(world)
    _start(world)
    asyncio.run(world.turns(2))
    victim = next(one for one in world.replicas if one.deployment_id == world.deployment.id)
    world.node.kill(victim.id, failure(EngineDied))
    asyncio.run(world.until(lambda: _rollout(world).state == "ROLLED_BACK"))
    failed = _rollout(world).failure
    assert failed is not None
    assert (failed.code, "ENGINE_DIED" in failed.evidence) == ("CANARY_LOST", True)
    assert _traffic(world) == [100, 0]


def test_what_was_not_sent_counts_for_the_rollout_alone(world: World, tmp_path: Path) -> None:
    """A request that found no place with the canary failed by it, and used nothing."""
    _two(world)
    _start(world)
    served = Served(world, tmp_path / "usage")
    served.logs[0].append(_record(world.clock.now, served.deployed[1], Service(failed=True), sent=False))
    served(1, Service())
    errors = _rollout(world).tallies.errors
    assert (errors.trials, errors.bad) == (2, 1)
    used = world.write(lambda tx: tx.usage.sums([UsageBy.KEY], begin_at=0, end_at=10**10))
    assert [one.requests for one in used] == [1]


def test_the_reconciler_is_woken_by_requests_that_are_watched(world: World, tmp_path: Path) -> None:
    """And by no others: who serves a million requests without a rollout is not kept from sleep."""
    _two(world)
    woken: list[int] = []
    ingester = UsageIngester(world.store, tmp_path / "usage", watched=lambda: woken.append(1))
    log, (_, canary) = UsageLog(tmp_path / "usage"), [one.id for one in world.rows(DeployedModel)]
    log.append(_record(world.clock.now, canary, None))
    log.append(_record(world.clock.now, canary, Service()))
    ingester.ingest()
    assert woken == []
    _start(world)
    log.append(_record(world.clock.now, canary, Service()))
    ingester.ingest()
    assert woken == [1]


def _change(world: World, state: RolloutState) -> None:
    world.write(lambda tx: change_rollout(tx, DEFAULT_SCOPE, _rollout(world).id, state))


def test_a_person_may_end_it_either_way(world: World) -> None:
    """At once, in any stage, with who did it in the timeline."""
    _two(world)
    _start(world)
    _change(world, RolloutState.ROLLED_BACK)
    assert (_traffic(world), _rollout(world).failure) == ([100, 0], None)
    assert world.timeline(_rollout(world).id, "rollout")[-1].detail.startswith("Aborted by hand at 10 %")
    again = _start(world)
    world.write(lambda tx: change_rollout(tx, DEFAULT_SCOPE, again.id, RolloutState.PROMOTED))
    assert _traffic(world) == [0, 100]
    with pytest.raises(RolloutNotFound):
        world.write(lambda tx: change_rollout(tx, DEFAULT_SCOPE, "none", RolloutState.PAUSED))


def _undeploy(world: World, place: int) -> None:
    one = world.rows(DeployedModel)[place]
    world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, "chat", one.id, contract="test", now=world.clock.now))


def test_nobody_else_changes_the_traffic_meanwhile(world: World) -> None:
    """A split by hand, a second rollout, a deployment that takes the traffic, undeploying the stable one: refused."""
    _two(world)
    _start(world)
    stable = world.rows(DeployedModel)[0].id
    for attempt in (
        lambda: world.write(lambda tx: split_traffic(tx, DEFAULT_SCOPE, "chat", {stable: 100})),
        lambda: _start(world),
        lambda: world.deploy(endpoint_id="chat"),
        lambda: _undeploy(world, 0),
    ):
        with pytest.raises(RolloutRunning, match=_rollout(world).id):
            attempt()
    assert _traffic(world) == [90, 10]
    world.deploy(endpoint_id="chat", no_traffic=True)
    assert _traffic(world) == [90, 10, 0]


def test_undeploying_the_canary_or_the_endpoint_ends_it(world: World) -> None:
    """The stable model has its traffic back before anything is taken off."""
    _two(world)
    _start(world)
    _undeploy(world, 1)
    assert (_rollout(world).state, _traffic(world)) == ("ROLLED_BACK", [100, 0])
    asyncio.run(world.until(lambda: len(world.rows(DeployedModel)) == 1))
    world.deploy(endpoint_id="chat", no_traffic=True)
    asyncio.run(world.until_state("READY"))
    second = _start(world)
    world.write(lambda tx: delete_endpoint(tx, DEFAULT_SCOPE, "chat", force=True, contract="test", now=world.clock.now))
    assert [one.state for one in world.rows(Rollout, id=second.id)] == ["ROLLED_BACK"]
    asyncio.run(world.until(lambda: not world.rows(DeployedModel)))


def test_what_cannot_begin_is_refused(world: World) -> None:
    """Without an endpoint, a canary, one that is READY, somebody to take from; or while a deployment takes it all."""
    with pytest.raises(EndpointNotFound):
        _start(world)
    world.node.memory_bytes *= 4
    world.deploy(endpoint_id="chat")
    with pytest.raises(RolloutRefused, match="takes all of its traffic"):
        _start(world)
    asyncio.run(world.until_state("READY"))
    asyncio.run(world.turns(6))
    with pytest.raises(RolloutRefused, match="no canary"):
        _start(world)
    (stable,) = world.rows(DeployedModel)
    with pytest.raises(RolloutRefused, match="Nothing else"):
        _start(world, model=stable.id)
    world.deploy(endpoint_id="chat", no_traffic=True)
    with pytest.raises(RolloutRefused, match="no canary"):
        _start(world)
    with pytest.raises(RolloutRefused, match="does not answer yet"):
        _start(world, model=world.rows(DeployedModel)[1].id)
    with pytest.raises(RolloutRefused, match="no deployed model 'other'"):
        _start(world, model="other")
    asyncio.run(world.until_state("READY"))
    canary = world.rows(DeployedModel)[1]
    world.write(lambda tx: split_traffic(tx, DEFAULT_SCOPE, "chat", {stable.id: 90, canary.id: 10}))
    with pytest.raises(RolloutRefused, match="as much traffic already"):
        _start(world, model=canary.id)
    assert (world.rows(Rollout), _traffic(world)) == ([], [90, 10])


@pytest.mark.parametrize(
    "plan",
    [
        RolloutPlan(stages=()),
        RolloutPlan(stages=(0, 5)),
        RolloutPlan(stages=(5, 101)),
        RolloutPlan(stages=(5, 5)),
        RolloutPlan(stages=tuple(range(1, 30))),
        RolloutPlan(min_requests=0),
        RolloutPlan(min_seconds=-1.0),
        RolloutPlan(min_seconds=float("inf")),
        RolloutPlan(false_alarms=0.0),
        RolloutPlan(bounds=RolloutBounds(error_rate=1.0)),
        RolloutPlan(bounds=RolloutBounds(slow_share=0.0)),
        RolloutPlan(bounds=RolloutBounds(times_stable=0.5)),
        RolloutPlan(bounds=RolloutBounds(first_token_s=0.0)),
        RolloutPlan(bounds=RolloutBounds(inter_token_s=float("nan"))),
    ],
    ids=str,
)
def test_a_plan_that_is_none_is_refused(plan: RolloutPlan) -> None:
    """With the field's name and its range."""
    with pytest.raises(BadField):
        check_plan(plan)


def test_a_defect_with_one_leaves_the_others_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again later, and the deployments of the same pass are looked after."""
    _two(world)
    rollout = _start(world)

    def broken(*_: object, **__: object) -> float:
        raise ZeroDivisionError("scripted")

    monkeypatch.setattr("headrace.control.reconciler.advance_rollout", broken)
    due_at = asyncio.run(world.reconciler.reconcile_once())
    assert due_at is not None
    assert f"A defect with rollout {rollout.id}" in caplog.text
