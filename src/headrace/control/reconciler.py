"""The reconciler: whatever is asked for in rows, it makes so, again and again, from whatever state it finds.

It keeps nothing that it could not find out again: killed at any moment and started anew, it goes on from the rows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from headrace.control.autoscaling import Autoscaler
from headrace.control.checking import Checked, Checker
from headrace.control.external import Looks, Pace, Wanted
from headrace.control.external.life import wanted_looks
from headrace.control.folder_check import FolderChecker
from headrace.control.gateway_client import GatewayClient
from headrace.control.gateway_link import GatewayLink
from headrace.control.leases import LeaseLedger
from headrace.control.lifecycle import advance, checkable, take_check
from headrace.control.nodes import Nodes
from headrace.control.operations import settle_operations
from headrace.control.orders import build_orders
from headrace.control.reports import fold
from headrace.control.restarts import delay_s
from headrace.control.rollouts.life import advance_rollout
from headrace.control.routing import build_snapshot
from headrace.control.serving.progress import advance_config, updating
from headrace.control.sight import Sight
from headrace.control.surplus import surplus_of
from headrace.resources.assignments import NodeOrders, NodeReport
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.egress import Egress
from headrace.resources.errors import Failure, HeadraceError, InternalError
from headrace.resources.models import ModelVersion
from headrace.resources.names import Scope
from headrace.resources.nodes import Node
from headrace.resources.rollouts import Rollout
from headrace.resources.snapshot import RoutingSnapshot
from headrace.resources.states import OPEN_ROLLOUT, DeploymentState
from headrace.resources.work import work_limits
from headrace.store import Store, Transaction

_log = logging.getLogger(__name__)

RESYNC_EVERY_S = 5.0
"""How often everything is looked at although nothing was heard: what a wake was forgotten for waits no longer."""

_STEPS_AT_ONCE = 10
"""More than any chain of states that needs nothing from outside; a bound on what a defect could spin."""

_ALIVE = tuple(state for state in DeploymentState if state is not DeploymentState.GONE)

Key = tuple[Scope, str]


class Reconciler:
    """Level-triggered: rows in, snapshot and orders out.

    Args:
        store: The rows.
        gateway: The gateway that routes by the snapshots, or all of them as one.
        gateways: How many there are.
        checker: Looks at artifacts; by default at what really lies at their addresses.
        egress: Where external servers may be.
        pace: How often external servers are looked at.
        data_dir: Where a node of this machine stages weights; None: none does.
        clock: Gives Unix seconds; the store's should be the same.

    Attributes:
        leases: How the gateways share the limits of keys.
    """

    def __init__(
        self,
        store: Store,
        gateway: GatewayClient,
        *,
        gateways: int = 1,
        checker: Checker | None = None,
        egress: Egress | None = None,
        pace: Pace | None = None,
        data_dir: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._clock = clock
        self._data_dir = data_dir
        self._checker: Checker = checker or FolderChecker()
        self._link = GatewayLink(gateway, self.wake)
        self._gateways = gateways
        self.leases = LeaseLedger(gateways)
        self._nodes = Nodes()
        self._egress = egress or Egress()
        self._looks = Looks(self.wake, pace)
        self._autoscaler = Autoscaler()
        self._snapshot: RoutingSnapshot | None = None
        self._checks: dict[Key, asyncio.Task[None]] = {}
        self._defects: dict[Key, tuple[int, float]] = {}
        self._folding = asyncio.Lock()
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """Look now: rows changed. From any thread."""
        if self._loop is None:
            self._woken.set()
        else:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Reconcile until cancelled, once; no failure of its own ends it."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_on(self._reconcile, "reconciling"))
                tasks.create_task(self._keep_on(self._link.run, "talking to the gateway"))
        finally:
            self._loop = None
            self._nodes.release()
            self._looks.close()
            for check in self._checks.values():
                check.cancel()

    async def orders(self, node_id: str, *, seen: int, wait_s: float) -> NodeOrders:
        """A node's orders, at once if they are others than ``seen``, else when they change or ``wait_s`` is over."""
        node = self._nodes[node_id]
        if node.orders is None:
            self.wake()
        return await node.newest_orders(seen, wait_s)

    async def report(self, report: NodeReport) -> None:
        """Take in what a node says."""
        node = self._nodes[report.node_id]
        async with self._folding:
            news = node.tells_anything(report) or not self._sight().hears(report.node_id)
            write = node.tells_rows(report)
            if write:
                known = node.takes_account_of(report)
                await self._store.run(partial(fold, report=report, takes_account_of=known, now=self._clock()))
            node.hear(report, self._clock(), written=write)
        if news:
            self.wake()

    async def reconcile_once(self) -> float | None:
        """Bring everything one pass further, and publish it.

        Returns:
            When to look again even if nothing is heard until then, in Unix seconds.
        """
        living, shrinks = await self._store.run(_living, read_only=True)
        self._follow_gateway_for(living, shrinks=shrinks)
        self._autoscaler.keep_only({(one.scope, one.id) for one in living})
        due = [await self._scale((one.scope, one.id)) for one in living if one.autoscaled]
        due += [await self._advance((one.scope, one.id)) for one in living]
        rollouts = await self._store.run(lambda tx: tx.list(Rollout, state=OPEN_ROLLOUT), read_only=True)
        due += [await self._advance_rollout((one.scope, one.id)) for one in rollouts]
        due += [await self._advance_config(key) for key in await self._store.run(updating, read_only=True)]
        await self._publish()
        return min((at for at in due if at is not None), default=None)

    def _follow_gateway_for(self, living: Sequence[Deployment], *, shrinks: bool) -> None:
        """Tell the link which of the gateway's answers these wait for."""
        self._link.watch(
            draining=shrinks or any(one.state is DeploymentState.DRAINING for one in living),
            asleep=frozenset(one.id for one in living if one.state is DeploymentState.ASLEEP),
            sleepy={
                one.id: one.scale_to_zero_after_s
                for one in living
                if one.state is DeploymentState.READY and one.scale_to_zero_after_s
            },
        )

    async def _reconcile(self) -> None:
        while True:
            self._woken.clear()
            due_at = await self.reconcile_once()
            wait_s = RESYNC_EVERY_S if due_at is None else min(RESYNC_EVERY_S, max(0.0, due_at - self._clock()))
            try:
                # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _keep_on(self, work: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
        failures = 0
        while True:
            began_at = time.monotonic()
            try:
                await work()
            except Exception:
                failures = 1 if time.monotonic() - began_at > RESYNC_EVERY_S else failures + 1
                _log.exception("A defect while %s; trying again in %.0f s.", what, delay_s(failures))
                await asyncio.sleep(delay_s(failures))

    def _sight(self) -> Sight:
        return Sight(
            now=self._clock(),
            heard_at=self._nodes.heard_at(),
            stages=self._nodes.stages(),
            routed=self._link.routed,
            bound=self._link.bound,
            outstanding=self._link.outstanding,
            waiting=self._link.waiting,
            idle_s=self._link.idle_s,
            per_minute=self._link.per_minute,
            work_per_minute=self._link.work_per_minute,
            work_waiting=self._link.work_waiting,
            hears_gateway=self._link.hears,
            loads=self._nodes.loads(self._clock()),
            external=self._looks.newest,
        )

    async def _advance(self, key: Key) -> float | None:
        """Take one deployment as far as it goes now. A defect with one leaves the others alone."""
        failures, not_before = self._defects.get(key, (0, 0.0))
        if self._clock() < not_before:
            return not_before
        try:
            due_at, check = await self._store.run(partial(_advance_far, key=key, sight=self._sight()))
        except Exception:
            return self._defect(key, failures)
        if check is not None and key not in self._checks:
            self._checks[key] = asyncio.create_task(self._check(key, *check))
        elif check is None:
            self._defects.pop(key, None)
        return due_at

    async def _scale(self, key: Key) -> float | None:
        """Decide how many replicas one deployment should run, if that is due; `_advance` makes it so."""
        named = (key[0], f"{key[1]}/scale")  # a defect here is none of the deployment
        failures, not_before = self._defects.get(named, (0, 0.0))
        now = self._clock()
        if now < not_before:
            return not_before
        due_at = self._autoscaler.due_at(key, now)
        if due_at > now:
            return due_at
        try:
            memory = await self._store.run(partial(self._autoscaler.look, key=key, sight=self._sight()))
        except Exception:
            return self._defect(named, failures, "the scale of deployment")
        self._defects.pop(named, None)
        self._autoscaler.remember(key, memory)
        return self._autoscaler.due_at(key, now) if memory else None

    async def _advance_rollout(self, key: Key) -> float | None:
        """As `_advance`, of a rollout; after the deployments, whose states it looks at."""
        failures, not_before = self._defects.get(key, (0, 0.0))
        if self._clock() < not_before:
            return not_before
        try:
            due_at = await self._store.run(partial(advance_rollout, key=key, now=self._clock()))
        except Exception:
            return self._defect(key, failures, "rollout")
        self._defects.pop(key, None)
        return due_at

    async def _advance_config(self, key: Key) -> float | None:
        """As `_advance_rollout`, of a serving endpoint that is on its way to another config."""
        named = (key[0], f"{key[1]}/config")
        failures, not_before = self._defects.get(named, (0, 0.0))
        if self._clock() < not_before:
            return not_before
        try:
            moved = await self._store.run(partial(advance_config, key=key, now=self._clock(), data_dir=self._data_dir))
        except Exception:
            return self._defect(named, failures, "the config of endpoint")
        self._defects.pop(named, None)
        return self._clock() if moved else None  # what is undeployed now drains at the next look

    async def _check(self, key: Key, version: ModelVersion, node: Node, machine: MachineSpec) -> None:
        outcome: Checked | Failure
        try:
            outcome = await asyncio.to_thread(self._checker.check, version, node, machine)
        except HeadraceError as error:
            outcome = error.failure
        except Exception as error:
            _log.exception("A defect while checking %s.", version.artifact_uri)
            outcome = InternalError("The check of the weights failed by a defect.", evidence=repr(error)).failure
        try:
            await self._store.run(partial(take_check, key=key, outcome=outcome))
        except Exception:
            self._defect(key, self._defects.get(key, (0, 0.0))[0])
        finally:
            del self._checks[key]
            self.wake()

    def _defect(self, key: Key, failures: int, what: str = "deployment") -> float:
        again_at = self._clock() + delay_s(failures + 1)
        self._defects[key] = (failures + 1, again_at)
        _log.exception("A defect with %s %s; trying again in %.0f s.", what, key[1], delay_s(failures + 1))
        return again_at

    async def _publish(self) -> None:
        """Make a new generation of whatever differs from what was published last, and hand it out."""
        snapshot, orders, looks = await self._store.run(self._build)
        self._looks.follow(looks)
        if snapshot is not None:
            self._snapshot = snapshot
            sold = work_limits(snapshot.endpoints)
            self.leases.follow(snapshot.keys, sold, endpoints=snapshot.endpoints)
            self._link.offer(snapshot)
        for node_id, newest in orders.items():
            self._nodes[node_id].order(newest)

    def _build(self, tx: Transaction) -> tuple[RoutingSnapshot | None, dict[str, NodeOrders], dict[str, Wanted]]:
        before, ahead = self._snapshot, self._link.generation
        snapshot = build_snapshot(tx, before.generation if before else 0, self._egress, gateways=self._gateways)
        # A gateway that is ahead of us knows a store that was set back; it would refuse anything smaller.
        fresh = None
        if snapshot != before or ahead > snapshot.generation:
            fresh = msgspec.structs.replace(snapshot, generation=tx.next_generation("snapshot", above=ahead))
        changed: dict[str, NodeOrders] = {}
        for node_id in self._nodes.ids | {node.id for node in tx.list(Node)}:
            known = self._nodes[node_id].orders
            orders = build_orders(tx, node_id, known.generation if known else 0)
            if orders != known:
                changed[node_id] = msgspec.structs.replace(orders, generation=tx.next_generation("orders"))
        return fresh, changed, wanted_looks(tx, self._egress)


def _living(tx: Transaction) -> tuple[list[Deployment], bool]:
    """All that is not gone, and whether a pool of it has more replicas than it should."""
    living = tx.list(Deployment, state=_ALIVE)
    return living, any(surplus_of(tx, one) for one in living if one.state is not DeploymentState.DRAINING)


def _advance_far(
    tx: Transaction, key: Key, sight: Sight
) -> tuple[float | None, tuple[ModelVersion, Node, MachineSpec] | None]:
    """As many steps as need nothing from outside; with when to look again, and what is to be checked."""
    due_at: float | None = None
    for _ in range(_STEPS_AT_ONCE):
        deployment = tx.get(Deployment, scope=key[0], id=key[1])
        if deployment is None:
            return None, None
        due_at = advance(tx, deployment, sight)
        settle_operations(tx, deployment.scope, sight)
        if due_at is None or due_at > sight.now:
            break
    deployment = tx.get(Deployment, scope=key[0], id=key[1])
    return due_at, checkable(tx, deployment) if deployment else None
