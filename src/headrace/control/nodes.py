"""What control remembers of nodes between their messages: when they were heard, what they said, what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from headrace.control.sight import StageKey
from headrace.resources.assignments import NodeOrders, NodeReport, ReplicaLoad, StageReport
from headrace.resources.states import ReplicaState

WRITE_EVERY_S = 30.0
"""How often a heartbeat that says nothing new is written all the same."""


LOAD_KEPT_S = 20.0
"""For how long what a replica had to do says something: three measurements and a half may fail."""


class NodeMemory:
    """One node. Nothing here needs to survive a restart of control: the node says it all again within seconds."""

    def __init__(self) -> None:
        self.heard_at = float("-inf")
        self.report: NodeReport | None = None
        self.orders: NodeOrders | None = None
        self._written_at = float("-inf")
        self._named_in: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._released = False

    def release(self) -> None:
        """Let nobody wait for orders any more: control ends."""
        self._released = True
        self._changed.set()

    def order(self, orders: NodeOrders) -> None:
        """These are the newest orders; whoever waits for them gets them."""
        named = [
            *(one.id for one in orders.replicas),
            *(_stage_name(one.fingerprint, one.runtime, one.dtype) for one in orders.stages),
        ]
        self._named_in = {name: self._named_in.get(name, orders.generation) for name in named}
        self.orders = orders
        self._changed.set()
        self._changed = asyncio.Event()

    async def newest_orders(self, seen: int, wait_s: float) -> NodeOrders:
        """The orders, at once if they are others than those seen; else when they change, or after ``wait_s``."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while not self._released and (self.orders is None or self.orders.generation == seen):
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                break
        return self.orders or NodeOrders(generation=0)

    def tells_rows(self, report: NodeReport) -> bool:
        """Whether a report says something that rows should, or the last write is long ago."""
        if self.report is None or report.at - self._written_at >= WRITE_EVERY_S:
            return True
        return msgspec.structs.replace(_steady(report), stages=()) != msgspec.structs.replace(
            _steady(self.report), stages=()
        )

    def tells_anything(self, report: NodeReport) -> bool:
        """Whether it is more than a heartbeat."""
        return self.report is None or _steady(report) != _steady(self.report)

    def hear(self, report: NodeReport, now: float, *, written: bool) -> None:
        """Take a report in, after what it says was written."""
        self.report = report
        self.heard_at = now
        if written:
            self._written_at = report.at

    def takes_account_of(self, report: NodeReport) -> frozenset[str]:
        """What this report would name if the node had it: it knew of the orders for it."""
        return frozenset(name for name, generation in self._named_in.items() if generation <= report.orders_generation)

    def stages(self) -> Mapping[tuple[str, str, str], StageReport]:
        """What the node says of the stage orders that it knows of; not what it said of earlier ones for the same."""
        if self.report is None:
            return {}
        known = self.takes_account_of(self.report)
        reports = {(one.fingerprint, one.runtime, one.dtype): one for one in self.report.stages}
        return {key: report for key, report in reports.items() if _stage_name(*key) in known}

    def loads(self, now: float) -> Mapping[str, ReplicaLoad]:
        """What its READY replicas have to do, where that was measured lately and all since they were READY.

        What an engine did while it loaded says nothing of what is asked of it.
        """
        if self.report is None or now - self.heard_at > LOAD_KEPT_S:
            return {}
        at = self.report.at
        return {
            one.id: one.load
            for one in self.report.replicas
            if one.load is not None
            and one.state is ReplicaState.READY
            and one.load.at - one.load.over_s >= one.since
            and at - one.load.at <= LOAD_KEPT_S
        }


class Nodes:
    """All of them, by id."""

    def __init__(self) -> None:
        self._by_id: dict[str, NodeMemory] = {}

    def __getitem__(self, node_id: str) -> NodeMemory:
        return self._by_id.setdefault(node_id, NodeMemory())

    @property
    def ids(self) -> frozenset[str]:
        """Those that were heard of or asked."""
        return frozenset(self._by_id)

    def release(self) -> None:
        """Let nobody wait for orders any more."""
        for node in self._by_id.values():
            node.release()

    def heard_at(self) -> dict[str, float]:
        """When each last reported."""
        return {node_id: node.heard_at for node_id, node in self._by_id.items()}

    def stages(self) -> dict[StageKey, StageReport]:
        """What they say of the stage orders that they know of."""
        return {
            (node_id, *key): report for node_id, node in self._by_id.items() for key, report in node.stages().items()
        }

    def loads(self, now: float) -> dict[str, ReplicaLoad]:
        """What replicas have to do, by their ids."""
        return {key: load for node in self._by_id.values() for key, load in node.loads(now).items()}


def _stage_name(fingerprint: str, runtime: str, dtype: str) -> str:
    return f"{fingerprint}/{runtime}/{dtype}"


def _steady(report: NodeReport) -> NodeReport:
    """Without what changes with every heartbeat."""
    ended = (ReplicaState.FAILED, ReplicaState.GONE)
    replicas = tuple(
        msgspec.structs.replace(one, resident_bytes=0, load=None, log_tail=one.log_tail if one.state in ended else ())
        for one in report.replicas
    )
    return msgspec.structs.replace(report, at=0.0, replicas=replicas)
