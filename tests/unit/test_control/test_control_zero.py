"""Scale to zero: nobody's request is cut off or forgotten by it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import GIB, World, failure

from headrace.control.commands import scale_to_zero, undeploy
from headrace.control.restarts import KEPT_FAILURES
from headrace.resources.deployments import Replica, Transition
from headrace.resources.errors import BadField, EngineDied, EngineSleepFailed, HeadraceError
from headrace.resources.external import ExternalServer
from headrace.resources.models import ServingSpec
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.states import ReplicaState

AFTER_S = 300.0


class Crowd:
    """What a gateway says of one deployment while requests come and go: it sends to replicas that it may send to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running: dict[str, int] = {}
        self.dead: set[str] = set()
        self.line = 0
        self.asked_at = world.clock.now

    def come(self) -> None:
        """One more request: onto a replica, or into the line."""
        self.asked_at = self.world.clock.now
        self.line += 1
        self.tell()

    def leave(self) -> None:
        """The oldest request that runs is over."""
        for replica in self.running:
            self.asked_at = self.world.clock.now
            self.running[replica] -= 1
            break
        self.tell()

    def rest(self) -> None:
        """All requests are over, and control has heard of it when the next step comes."""
        if self.running:
            self.asked_at = self.world.clock.now
        self.running.clear()
        self.tell()
        asyncio.run(self.world.turn(seconds=AFTER_S + 1))
        self.tell()

    def lose(self) -> None:
        """An engine dies, and breaks off what runs on it."""
        for replica_id in [*self.world.node.replicas][:1]:
            self.world.node.kill(replica_id, failure(EngineDied))
            self.dead.add(replica_id)
            self.running.pop(replica_id, None)
        self.tell()

    def tell(self) -> None:
        """Let in who may go in, and say what the gateway would."""
        gateway = self.world.gateway
        living = [replica for replica in gateway.replicas if replica not in self.dead]
        if living:
            self.running[living[0]] = self.running.get(living[0], 0) + self.line
            self.line = 0
        self.running = {replica: count for replica, count in self.running.items() if count}
        gateway.outstanding = dict(self.running)
        name = self.world.deployment.id
        gateway.waiting = {name: self.line} if self.line else {}
        idle_s = self.world.clock.now - self.asked_at
        gateway.idle_s = {} if self.running or self.line or not gateway.replicas else {name: idle_s}


def _ready(world: World, **fields: float) -> Crowd:
    world.deploy(scale_to_zero_after_s=AFTER_S, **fields)
    asyncio.run(world.until(lambda: world.gateway.replicas))
    asyncio.run(world.turns(2))
    crowd = Crowd(world)
    crowd.tell()
    return crowd


def _asleep(world: World) -> Crowd:
    crowd = _ready(world)
    world.gateway.idle_s = {world.deployment.id: AFTER_S}
    asyncio.run(world.until_state("ASLEEP"))
    asyncio.run(world.until(lambda: not world.rows(Replica, state=(ReplicaState.READY, ReplicaState.DRAINING))))
    return crowd


def test_what_nobody_asks_for_goes_to_sleep_and_says_so(world: World) -> None:
    """After its time without a request its engine is stopped, and the timeline and the route say why."""
    _asleep(world)
    asyncio.run(world.turn())
    assert world.node.orders.replicas == ()
    last = world.timeline(world.deployment.id)[-1]
    assert (last.state, last.detail) == (
        "ASLEEP",
        "Scaled to zero after 300 s without a request; the next request wakes it.",
    )
    ((route,),) = [endpoint.deployed for endpoint in world.gateway.snapshot.endpoints]
    assert (route.replicas, route.wakes, route.why_not_ready) == ((), True, "It scaled to zero; a request wakes it.")
    asyncio.run(world.turns(20, seconds=60))
    assert world.deployment.state == "ASLEEP"


def test_a_request_wakes_it(world: World) -> None:
    """One that waits brings a new engine; the deployment is READY again, and no restart was counted for it."""
    crowd = _asleep(world)
    crowd.come()
    asyncio.run(world.until_state("READY"))
    asyncio.run(world.until(lambda: world.gateway.replicas))
    states = world.states(world.deployment.id)
    assert states[-6:] == ["READY", "ASLEEP", "PLACING", "STARTING", "WARMING", "READY"]
    assert len(world.node.started) == 2


def test_without_the_wish_it_never_sleeps(world: World) -> None:
    """A deployment that was not asked to scale to zero stays, and nobody waits for it when it has no replica."""
    world.deploy()
    asyncio.run(world.until(lambda: world.gateway.replicas))
    world.gateway.idle_s = {world.deployment.id: 1e9}
    asyncio.run(world.turns(5, seconds=100))
    assert world.deployment.state == "READY"
    ((route,),) = [endpoint.deployed for endpoint in world.gateway.snapshot.endpoints]
    assert not route.wakes


def test_nobody_waits_for_what_never_was_ready(world: World) -> None:
    """Until it was READY once, requests are refused as with any deployment: it may well fail."""
    world.deploy(scale_to_zero_after_s=AFTER_S)
    asyncio.run(world.until_state("STARTING"))
    asyncio.run(world.turn())
    ((route,),) = [endpoint.deployed for endpoint in world.gateway.snapshot.endpoints]
    assert not route.wakes


def test_what_slipped_in_keeps_its_engine(world: World) -> None:
    """A request that was sent just before the pool went to sleep ends on its engine, which then goes on serving."""
    _ready(world)
    (replica,) = world.replicas
    world.gateway.idle_s = {world.deployment.id: AFTER_S}
    asyncio.run(world.reconciler._link.exchange())
    world.gateway.outstanding = {replica.id: 1}
    asyncio.run(world.reconciler.reconcile_once())
    assert world.deployment.state == "ASLEEP"
    world.gateway.idle_s = {}
    asyncio.run(world.until_state("READY"))
    asyncio.run(world.until(lambda: world.gateway.replicas))
    assert [(one.id, one.state) for one in world.replicas] == [(replica.id, "READY")]


def test_what_a_gateway_does_not_know_is_not_idle(world: World) -> None:
    """While the gateway is away nothing goes to sleep, and nothing that sleeps already is stopped."""
    _ready(world)
    world.gateway.idle_s = {world.deployment.id: AFTER_S}
    world.gateway.away = True
    asyncio.run(world.turns(5))
    assert world.deployment.state == "READY"


def test_it_sleeps_and_wakes_through_a_new_control(world: World) -> None:
    """Asleep is a row: a control that starts anew leaves it so, and wakes it when it is asked."""
    crowd = _asleep(world)
    world.restart_control()
    asyncio.run(world.turns(5))
    assert world.deployment.state == "ASLEEP"
    crowd.come()
    asyncio.run(world.until_state("READY"))


def test_memory_is_free_while_it_sleeps(world: World) -> None:
    """What it held another may hold; waking it then waits for room and says so, and comes once there is some."""
    world.node.memory_bytes = 6 * GIB
    crowd = _asleep(world)
    sleeper = world.deployment
    world.deploy()
    asyncio.run(world.until_state("READY"))
    other = world.bindings[-1]
    world.gateway.waiting = {sleeper.id: 1}
    asyncio.run(world.turns(5))
    assert "free" in world.timeline(sleeper.id)[-1].detail
    world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, other.endpoint_id, other.id, contract="t", now=crowd.asked_at))
    asyncio.run(world.until(lambda: world.states(sleeper.id)[-1] == "READY"))


def test_one_that_scales_to_zero_no_more_wakes_up(world: World) -> None:
    """Changed while it sleeps, it becomes READY though nobody asks, and stays so until it is changed back."""
    _asleep(world)
    sleeper = world.deployment
    world.write(lambda tx: scale_to_zero(tx, DEFAULT_SCOPE, sleeper.id, 0.0))
    asyncio.run(world.until_state("READY"))
    asyncio.run(world.until(lambda: world.gateway.replicas))
    world.gateway.idle_s = {sleeper.id: 10 * AFTER_S}
    asyncio.run(world.turns(5))
    assert world.deployment.state == "READY"
    world.write(lambda tx: scale_to_zero(tx, DEFAULT_SCOPE, sleeper.id, AFTER_S))
    asyncio.run(world.until_state("ASLEEP"))


def test_it_is_undeployed_asleep(world: World) -> None:
    """A sleeping deployment goes at once."""
    _asleep(world)
    (one,) = world.bindings
    world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, one.endpoint_id, one.id, contract="t", now=world.clock.now))
    asyncio.run(world.until_state("GONE"))
    assert world.replicas == []


def test_an_engine_that_dies_when_it_wakes_is_replaced(world: World) -> None:
    """Waking is tried until it succeeds: a deployment that was READY is never given up."""
    crowd = _asleep(world)
    world.node.ladder = (ReplicaState.STARTING, failure(EngineDied))
    crowd.come()
    asyncio.run(world.until(lambda: world.rows(Replica, state=ReplicaState.FAILED)))
    world.node.ladder = (ReplicaState.STARTING, ReplicaState.WARMING, ReplicaState.READY)
    asyncio.run(world.until_state("READY"))


def test_many_sleeps_leave_few_records(world: World) -> None:
    """However often it slept, the records of its engines stay few, and epochs only grow."""
    crowd = _asleep(world)
    for _ in range(KEPT_FAILURES + 3):
        crowd.come()
        asyncio.run(world.until(lambda: world.gateway.replicas))
        crowd.line, crowd.running = 0, {}
        crowd.tell()
        world.gateway.idle_s = {world.deployment.id: AFTER_S}
        asyncio.run(world.until_state("ASLEEP"))
        asyncio.run(world.turns(4))
    assert len(world.replicas) <= KEPT_FAILURES + 1
    assert max(one.epoch for one in world.replicas) == KEPT_FAILURES + 4
    assert world.deployment.restarts == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"scale_to_zero_after_s": 0.5},
        {"scale_to_zero_after_s": -1.0},
        {"scale_to_zero_after_s": float("inf")},
        {"scale_to_zero_after_s": float("nan")},
    ],
)
def test_times_that_make_no_sense_are_refused(world: World, fields: Mapping[str, float]) -> None:
    """Less than a second, or for ever, is no time."""
    with pytest.raises(BadField):
        world.deploy(**fields)


def _sleepers(world: World) -> list[Replica]:
    return world.rows(Replica, state=ReplicaState.ASLEEP)


def _sleeping(world: World) -> Crowd:
    """As `_asleep`, on a node whose engines can sleep."""
    world.node.sleeps = True
    crowd = _asleep(world)
    asyncio.run(world.until(lambda: _sleepers(world)))
    return crowd


def test_an_engine_that_can_sleep_sleeps_and_wakes(world: World) -> None:
    """It is told to, not stopped; the timeline says how long each took, the same engine serves again, and nothing is
    routed to it meanwhile."""
    crowd = _sleeping(world)
    (replica,) = world.replicas
    assert world.timeline(world.deployment.id)[-1].detail == "Sleeping, memory released in 0.8 s."
    assert [(one.wanted, one.may_sleep) for one in world.node.orders.replicas] == [("sleep", True)]
    assert world.gateway.replicas == []
    crowd.come()
    asyncio.run(world.until_state("READY"))
    asyncio.run(world.until(lambda: world.gateway.replicas))
    assert world.timeline(world.deployment.id)[-1].detail == "Awake after 1.2 s."
    assert world.states(replica.id, "replica")[-4:] == ["DOZING", "ASLEEP", "WAKING", "READY"]
    assert (world.gateway.replicas, len(world.node.started)) == ([replica.id], 1)


def test_what_never_scales_to_zero_is_not_started_to_sleep(world: World) -> None:
    """Its engines are not told that they may."""
    world.deploy()
    asyncio.run(world.until(lambda: world.gateway.replicas))
    assert [order.may_sleep for order in world.node.started] == [False]


def test_who_asks_while_it_falls_asleep_waits_until_it_did(world: World) -> None:
    """Nothing is sent to an engine that was told to sleep before it slept and woke."""
    world.node.sleeps = True
    crowd = _ready(world)
    (replica,) = world.replicas
    world.gateway.idle_s = {world.deployment.id: AFTER_S}
    asyncio.run(world.until(lambda: world.rows(Replica, state=ReplicaState.DOZING)))
    crowd.come()
    asyncio.run(world.until(lambda: world.gateway.replicas))
    assert world.states(replica.id, "replica")[-4:] == ["DOZING", "ASLEEP", "WAKING", "READY"]
    assert len(world.node.started) == 1


@pytest.mark.parametrize("kind", [EngineDied, EngineSleepFailed])
def test_an_engine_that_does_not_wake_is_started_anew(world: World, kind: type[HeadraceError]) -> None:
    """Whoever waits for it is served by the next one."""
    crowd = _sleeping(world)
    world.node.wakes = failure(kind)
    crowd.come()
    asyncio.run(world.until(lambda: world.rows(Replica, state=ReplicaState.FAILED)))
    asyncio.run(world.until(lambda: world.gateway.replicas))
    assert (world.deployment.state, len(world.node.started)) == ("READY", 2)


def test_an_engine_that_dies_asleep_is_replaced_by_the_next_request(world: World) -> None:
    """Not before: what sleeps needs none."""
    crowd = _sleeping(world)
    world.node.kill(world.replicas[0].id, failure(EngineDied))
    asyncio.run(world.turns(5, seconds=100))
    assert (world.deployment.state, len(world.node.started)) == ("ASLEEP", 1)
    crowd.come()
    asyncio.run(world.until(lambda: world.gateway.replicas))
    assert len(world.node.started) == 2


def test_a_machine_that_was_switched_off_starts_nothing_that_slept(world: World) -> None:
    """An engine that should sleep and is not there is gone, and nothing failed."""
    crowd = _sleeping(world)
    world.node.lose_everything()
    asyncio.run(world.turns(5))
    assert [one.state for one in world.replicas] == ["GONE"]
    assert (world.deployment.state, len(world.node.started)) == ("ASLEEP", 1)
    crowd.come()
    asyncio.run(world.until(lambda: world.gateway.replicas))


def test_what_sleeps_makes_room_for_what_is_asked_for(world: World) -> None:
    """A sleeping engine keeps its memory while nobody needs it, and is stopped for another that does; none is stopped
    where that would not be enough. Awake again later, it has a new engine."""
    world.node.memory_bytes = 6 * GIB
    _sleeping(world)
    sleeper = world.deployment
    asyncio.run(world.turns(5))
    assert len(_sleepers(world)) == 1
    world.checker.says = msgspec.structs.replace(world.checker.says, memory_bytes=7 * GIB)  # type: ignore[type-var]
    world.deploy()
    asyncio.run(world.turns(10))
    assert len(_sleepers(world)) == 1
    (_, hopeless) = world.bindings
    world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, hopeless.endpoint_id, hopeless.id, contract="t", now=1.0))
    world.checker.says = msgspec.structs.replace(world.checker.says, memory_bytes=3 * GIB)  # type: ignore[type-var]
    world.deploy()
    asyncio.run(world.until_state("READY"))
    assert _sleepers(world) == []
    (stopped,) = [move for one in world.rows(Replica, deployment_id=sleeper.id) for move in _drained(world, one)]
    assert "needs its memory" in stopped.detail


def _drained(world: World, replica: Replica) -> list[Transition]:
    return [move for move in world.timeline(replica.id, "replica") if move.state == "DRAINING"]


def test_it_is_undeployed_with_its_engine_asleep(world: World) -> None:
    """Then the engine ends too."""
    _sleeping(world)
    (one,) = world.bindings
    world.write(lambda tx: undeploy(tx, DEFAULT_SCOPE, one.endpoint_id, one.id, contract="t", now=world.clock.now))
    asyncio.run(world.until_state("GONE"))
    assert world.replicas == []


STEPS = st.lists(
    st.sampled_from(
        ["come", "leave", "turn", "turn", "rest", "rest", "wait", "away", "restart control", "restart node", "dies"]
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=25)
@given(steps=STEPS, sleeps=st.booleans())
def test_whoever_asks_is_served(steps: list[str], sleeps: bool) -> None:
    """Whatever comes, leaves, dies or is restarted, whether engines can sleep or only end: none is told to while a
    request runs on it, the pool is asleep with somebody in line no longer than until control hears of it, and all who
    came get their engine."""
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.node.sleeps = sleeps
        try:
            _play(world, steps)
        finally:
            world.store.close()


def _play(world: World, steps: list[str]) -> None:
    crowd = _ready(world)
    actions = {
        "come": crowd.come,
        "leave": crowd.leave,
        "rest": crowd.rest,
        "dies": crowd.lose,
        "restart control": world.restart_control,
        "restart node": world.node.restart,
    }
    for step in steps:
        world.gateway.away = step == "away"
        actions.get(step, crowd.tell)()
        crowd.tell()
        asyncio.run(world.turn(seconds=AFTER_S + 1 if step in {"wait", "rest"} else 1.0))
        crowd.tell()
        told = (ReplicaState.DOZING, ReplicaState.ASLEEP, ReplicaState.DRAINING, ReplicaState.GONE)
        stopped = {one.id for one in world.rows(Replica, state=told)}
        assert not stopped & crowd.running.keys(), "an engine was stopped under a request"
    world.gateway.away = False
    crowd.come()

    async def until_served() -> None:
        for _ in range(30):
            crowd.tell()
            if not crowd.line:
                return
            await world.turn()
        raise AssertionError(f"{crowd.line} wait for ever: {world.states(world.deployment.id)}")

    asyncio.run(until_served())
    if crowd.running:
        for _ in range(3):
            asyncio.run(world.turn(seconds=AFTER_S))
            crowd.tell()
        assert world.deployment.state == "READY"


def test_an_external_server_is_not_stopped(world: World) -> None:
    """What is not ours does not scale to zero."""
    server = ExternalServer(base_url="https://api.example.com/v1", model="m", anywhere=False)
    with pytest.raises(BadField):
        world.deploy(
            artifact_uri="https://api.example.com/v1",
            spec=ServingSpec(runtime="external", external=server),
            scale_to_zero_after_s=60.0,
        )
