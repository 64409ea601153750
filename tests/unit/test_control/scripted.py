"""A control plane with hands of its own: real reconciler, real store; checker, node and gateway follow a script.

Nothing runs by itself here: `World.turn` drives everybody one step, and the clock moves only when told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from headrace.control import Checked, GatewayAway, Reconciler
from headrace.control.commands import DeployRequest, deploy
from headrace.control.pool import LIVE
from headrace.resources.assignments import (
    NodeOrders,
    NodeReport,
    ProfileReport,
    ReplicaLoad,
    ReplicaOrder,
    ReplicaReport,
    StageReport,
)
from headrace.resources.autoscaling import Scaling
from headrace.resources.deployments import Deployment, MachineSpec, Replica, Warmup
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import Failure, HeadraceError
from headrace.resources.models import ModelVersion
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.nodes import LOCAL_NODE, Node
from headrace.resources.operations import Operation
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot
from headrace.resources.states import ReplicaState
from headrace.store import Store, Transaction, migrate

GIB = 1 << 30
UP: tuple[ReplicaState, ...] = (ReplicaState.STARTING, ReplicaState.WARMING, ReplicaState.READY)


class Clock:
    """Time, when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Unix seconds."""
        return self.now


class ScriptedChecker:
    """Says of every version what it is told to say: what to serve it with, or what is wrong."""

    def __init__(self) -> None:
        self.says: Checked | Exception = Checked(
            runtime_reason="Runtime transformers: the only one.",
            fingerprint="f" * 64,
            runtime="transformers",
            max_model_len=4096,
            memory_bytes=4 * GIB,
            model_bytes=GIB,
        )
        self.asked = 0

    def check(self, version: ModelVersion, node: Node, machine: MachineSpec) -> Checked:
        """As `Checker.check`."""
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class ScriptedNode:
    """A node that takes each replica one rung up a ladder with every turn, or down as its script says.

    Attributes:
        ladder: The states, or a failure, through which the next replicas go.
        staging: What the next stage orders go through.
        notes: What it has to tell of every stage.
        gpus: The memory of each of its GPUs.
        hardware: What it tells of itself instead, if anything.
        silent: It neither asks nor reports.
        sleeps: Its engines can sleep.
        loads: What its READY replicas have to do: a fresh measurement with every report, by replica or for ``""``, all.
        wakes: What comes of the next that is told to wake.
        measures: What comes of measuring a replica that is to be measured before it is READY.
    """

    def __init__(self, memory_bytes: int = 10 * GIB) -> None:
        self.memory_bytes = memory_bytes
        self.ladder: Sequence[ReplicaState | Failure] = UP
        self.staging: Sequence[Literal["installing", "copying", "done"] | Failure] = ("installing", "copying", "done")
        self.notes: tuple[str, ...] = ()
        self.gpus: Sequence[int] = ()
        self.hardware: dict[str, Any] = {}
        self.silent = False
        self.sleeps = False
        self.loads: dict[str, ReplicaLoad] = {}
        self.wakes: ReplicaState | Failure = ReplicaState.READY
        self.measures: ProfileReport | None = None
        self.boots = 1
        self.orders = NodeOrders(generation=0)
        self.seen_generations: list[int] = []
        self.replicas: dict[str, ReplicaReport] = {}
        self.started: list[ReplicaOrder] = []
        self._ladders: dict[str, list[ReplicaState | Failure]] = {}
        self._stages: dict[tuple[str, str], list[Any]] = {}

    async def turn(self, reconciler: Reconciler, now: float, *, wait_s: float = 0.0) -> None:
        """Get the orders, new ones if they come soon, obey them by one step, report."""
        if self.silent:
            return
        self.orders = await reconciler.orders(LOCAL_NODE, seen=self.orders.generation if wait_s else 0, wait_s=wait_s)
        self.seen_generations.append(self.orders.generation)
        for order in self.orders.replicas:
            self._obey(order, now)
        for stage in self.orders.stages:
            left = self._stages.setdefault((stage.fingerprint, stage.runtime), ["", *self.staging])
            if len(left) > 1:
                left.pop(0)
        ordered = {order.id for order in self.orders.replicas}
        self.replicas = {key: one for key, one in self.replicas.items() if key in ordered}
        staged = {(stage.fingerprint, stage.runtime) for stage in self.orders.stages}
        self._stages = {key: left for key, left in self._stages.items() if key in staged}
        await reconciler.report(self.report(now))

    def report(self, now: float) -> NodeReport:
        """What it would say now."""
        return NodeReport(
            node_id=LOCAL_NODE,
            boot_id=f"boot-{self.boots}",
            orders_generation=self.orders.generation,
            at=now,
            memory_bytes=self.memory_bytes,
            cores=2,
            hardware=self.hardware or {"gpus": [_gpu(*each) for each in enumerate(self.gpus)]},
            stages=tuple(
                msgspec.structs.replace(_stage_report(*key, left[0]), notes=self.notes)
                for key, left in self._stages.items()
            ),
            replicas=tuple(self._weighed(one, now) for one in self.replicas.values()),
        )

    def _weighed(self, one: ReplicaReport, now: float) -> ReplicaReport:
        load = self.loads.get(one.id, self.loads.get(""))
        if load is None or one.state is not ReplicaState.READY:
            return one
        return msgspec.structs.replace(one, load=msgspec.structs.replace(load, at=now))

    def kill(self, replica_id: str, failure: Failure, *, log_tail: tuple[str, ...] = ()) -> None:
        """This engine dies, with signal 9."""
        self.replicas[replica_id] = msgspec.structs.replace(
            self.replicas[replica_id], state=ReplicaState.FAILED, failure=failure, exit_status=-9, log_tail=log_tail
        )

    def lose_everything(self) -> None:
        """The machine was switched off and on."""
        self.boots += 1
        self.replicas = {}
        self._ladders = {}
        self._stages = {}

    def restart(self) -> None:
        """The agent starts anew and looks at its replicas afresh."""
        self.boots += 1
        for key, one in self.replicas.items():
            if one.state is ReplicaState.READY:
                self.replicas[key] = msgspec.structs.replace(one, state=ReplicaState.STARTING)
                self._ladders[key] = [ReplicaState.READY]

    def _sleep_or_wake(self, one: ReplicaReport, wanted: str) -> None:
        """One step there: what is begun is ended first, and each takes a turn."""
        ahead = {
            ReplicaState.DOZING: (ReplicaState.ASLEEP, "Sleeping, memory released in 0.8 s."),
            ReplicaState.WAKING: (self.wakes, "Awake after 1.2 s."),
        }
        if one.state is ReplicaState.READY and wanted == "sleep":
            ahead[one.state] = ReplicaState.DOZING, ""
        if one.state is ReplicaState.ASLEEP and wanted == "run":
            ahead[one.state] = ReplicaState.WAKING, ""
        state, detail = ahead.get(one.state, (one.state, one.detail))
        if isinstance(state, Failure):
            self.kill(one.id, state)
        else:
            self.replicas[one.id] = msgspec.structs.replace(one, state=state, detail=detail)

    def _obey(self, order: ReplicaOrder, now: float) -> None:
        one = self.replicas.get(order.id)
        if order.wanted == "stop" or (order.wanted == "sleep" and not self.sleeps):
            if one is not None:
                self.replicas[order.id] = msgspec.structs.replace(one, state=ReplicaState.GONE, exit_status=0)
            return
        up = one is not None and one.state is ReplicaState.READY
        if one is not None and (one.state in _RESTING or (up and order.wanted == "sleep")):
            self._sleep_or_wake(one, order.wanted)
            return
        if one is None and order.wanted == "sleep":
            gone = ReplicaReport(id=order.id, epoch=order.epoch, state=ReplicaState.GONE, since=now)
            self.replicas[order.id] = gone
            return
        if one is None:
            self.started.append(order)
            self._ladders[order.id] = list(self.ladder)
            self.replicas[order.id] = ReplicaReport(
                id=order.id, epoch=order.epoch, state=ReplicaState.PLACED, since=now, address=f"unix:/{order.id}", pid=7
            )
            return
        if one.state is ReplicaState.FAILED or not self._ladders.get(order.id):
            return
        rung = self._ladders[order.id].pop(0)
        if isinstance(rung, Failure):
            self.kill(order.id, rung)
        else:
            warmup = Warmup(time_to_first_token_s=0.1, tokens_per_s=50.0, output_tokens=8)
            profile = self.measures if order.profile is not None and rung is ReplicaState.READY else one.profile
            self.replicas[order.id] = msgspec.structs.replace(
                one, state=rung, warmup=warmup, resident_bytes=GIB, profile=profile
            )


_RESTING = (ReplicaState.DOZING, ReplicaState.ASLEEP, ReplicaState.WAKING)


def _gpu(index: int, memory_bytes: int) -> dict[str, object]:
    return {"index": index, "uuid": f"GPU-{index}", "memory_total_bytes": memory_bytes, "compute_capability": "8.9"}


def _stage_report(fingerprint: str, runtime: str, phase: Any) -> StageReport:
    if isinstance(phase, Failure):
        return StageReport(fingerprint=fingerprint, runtime=runtime, phase="failed", failure=phase)
    copied = {"done_bytes": GIB // 4, "bytes_per_s": GIB / 8} if phase == "copying" else {}
    return StageReport(fingerprint=fingerprint, runtime=runtime, phase=phase or "installing", total_bytes=GIB, **copied)


class RecordingGateway:
    """Remembers every push, and refuses what a gateway refuses."""

    def __init__(self) -> None:
        self.pushed: list[RoutingSnapshot] = []
        self.snapshot = RoutingSnapshot(generation=0)
        self.outstanding: dict[str, int] = {}
        self.waiting: dict[str, int] = {}
        self.idle_s: dict[str, float] = {}
        self.per_minute: dict[str, int] = {}
        self.work_per_minute: dict[str, float] = {}
        self.work_waiting: dict[str, float] = {}
        self.away = False

    async def push(self, snapshot: RoutingSnapshot) -> GatewayStatus:
        """As `GatewayClient.push`."""
        if self.away:
            raise GatewayAway("scripted")
        self.pushed.append(snapshot)
        if snapshot.generation >= self.snapshot.generation:
            self.snapshot = snapshot
        return await self.status()

    async def status(self) -> GatewayStatus:
        """As `GatewayClient.status`."""
        if self.away:
            raise GatewayAway("scripted")
        return GatewayStatus(
            generation=self.snapshot.generation,
            outstanding=dict(self.outstanding),
            waiting=dict(self.waiting),
            idle_s=dict(self.idle_s),
            per_minute=dict(self.per_minute),
            work_per_minute=dict(self.work_per_minute),
            work_waiting=dict(self.work_waiting),
        )

    def restart(self) -> None:
        """Without the snapshot that it kept on disk."""
        self.snapshot = RoutingSnapshot(generation=0)

    @property
    def replicas(self) -> list[str]:
        """Those that it may send to."""
        routes = [route for endpoint in self.snapshot.endpoints for route in endpoint.deployed]
        return [replica.id for route in routes for replica in route.replicas]


class World:
    """Everybody, on one clock."""

    def __init__(self, folder: Path, *, make_store: Callable[..., Store] = Store) -> None:
        url = f"sqlite:///{folder}/headrace.db"
        migrate(url)
        self.data_dir = folder
        self.clock = Clock()
        self.store = make_store(url, clock=self.clock)
        self.checker = ScriptedChecker()
        self.node = ScriptedNode()
        self.gateway = RecordingGateway()
        self.restart_control()

    def restart_control(self) -> None:
        """What the reconciler had in memory is lost."""
        self.reconciler = Reconciler(
            self.store, self.gateway, checker=self.checker, clock=self.clock, data_dir=self.data_dir
        )

    async def turn(self, *, seconds: float = 1.0) -> None:
        """Everybody does what they do, once: the bodies of the reconciler's loops, driven by hand."""
        await self.reconciler.reconcile_once()
        await asyncio.gather(*self.reconciler._checks.values())
        await self.reconciler._link.exchange()
        await self.node.turn(self.reconciler, self.clock.now)
        self.clock.now += seconds

    async def turns(self, number: int, *, seconds: float = 1.0) -> None:
        """So many turns."""
        for _ in range(number):
            await self.turn(seconds=seconds)

    async def until(self, satisfied: Callable[[], object], *, at_most: int = 60, seconds: float = 1.0) -> None:
        """Turn until this holds."""
        for _ in range(at_most):
            if satisfied():
                return
            await self.turn(seconds=seconds)
        told = "\n".join(str(move) for one in self.rows(Deployment) for move in self.timeline(one.id))
        raise AssertionError(f"It does not come to hold. {told}")

    async def until_state(self, *states: str, at_most: int = 60, seconds: float = 1.0) -> Deployment:
        """Turn until the newest deployment is in one of these."""
        await self.until(lambda: self.deployment.state in states, at_most=at_most, seconds=seconds)
        return self.deployment

    def write(self, work: Callable[[Transaction], Any]) -> Any:
        """Do this in a transaction."""
        with Store.transaction(self.store) as tx:
            return work(tx)

    @property
    def living(self) -> int:
        """Replicas that run or are about to."""
        return len(self.rows(Replica, state=LIVE))

    @property
    def decided(self) -> Scaling:
        """What the autoscaler decided last."""
        scaling = self.deployment.scaling
        assert scaling is not None
        return scaling

    def rows(self, kind: type[Any], /, **equals: Any) -> list[Any]:
        """What is stored."""
        with Store.transaction(self.store, read_only=True) as tx:
            return tx.list(kind, **equals)

    def timeline(self, resource_id: str, kind: str = "deployment") -> list[Any]:
        """Every entry of it."""
        with Store.transaction(self.store, read_only=True) as tx:
            return tx.timelines.during(kind, resource_id, 0.0)

    def states(self, resource_id: str, kind: str = "deployment") -> list[str]:
        """The states that it passed."""
        told = [move.state for move in self.timeline(resource_id, kind)]
        return [state for place, state in enumerate(told) if place == 0 or told[place - 1] != state]

    def deploy(self, **fields: Any) -> Operation:
        """Ask for a deployment, later than for any before it."""
        self.clock.now += 0.001
        request = DeployRequest(scope=DEFAULT_SCOPE, artifact_uri="file:///models/llama", contract="test")
        request = msgspec.structs.replace(request, **fields)
        operation = self.write(lambda tx: deploy(tx, request, now=self.clock.now))
        assert isinstance(operation, Operation)
        return operation

    def operation(self, operation: Operation) -> Operation:
        """As it is now."""
        (now,) = self.rows(Operation, id=operation.id)
        assert isinstance(now, Operation)
        return now

    @property
    def deployment(self) -> Deployment:
        """The newest."""
        deployment = self.rows(Deployment)[-1]
        assert isinstance(deployment, Deployment)
        return deployment

    @property
    def bindings(self) -> list[DeployedModel]:
        """Every deployed model."""
        return self.rows(DeployedModel)

    @property
    def replicas(self) -> list[Replica]:
        """Every replica whose row is there."""
        return self.rows(Replica)


def failure(kind: type[HeadraceError]) -> Failure:
    """One of this kind."""
    return kind("It went wrong.", evidence="A scripted failure.").failure
