"""The agent of one machine: keeps what runs here equal to what control ordered, and tells control how things are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Mapping

import msgspec

from headrace.compute.backend import ComputeBackend, EngineProcess
from headrace.compute.local import LocalBackend
from headrace.hardware import MachineShape, find_cores, look
from headrace.node import journal
from headrace.node.link import ControlLink
from headrace.node.probe import Patience
from headrace.node.replica import ReplicaRun, Surroundings
from headrace.node.sharing import CoreSharing, Share
from headrace.node.stager import Installer, Stager
from headrace.resources.assignments import ModelCacheReport, NodeOrders, NodeReport, ReplicaOrder, RuntimeReport
from headrace.resources.errors import ControlPlaneDown
from headrace.resources.layout import Layout
from headrace.resources.states import ReplicaState
from headrace.runtimes import RUNTIMES, Environments, Runtime
from headrace.storage import Claim, Credentials, ModelCache

HEARTBEAT_S = 2.0
ORDERS_WAIT_S = 25.0

_RETRY_S = 0.5
_MEASURE_S = 10.0
_LOOK_S = 30.0
_WEIGH_S = 5.0
_LAST_REPORT_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


class Agent:
    """One node.

    Args:
        layout: Where this installation's files and sockets are.
        control_address: ``unix:/path`` or ``http://host:port`` of control.
        token: The internal token.
        node_id: The name that control knows this machine by.
        runtimes: What it can run.
        backend: Where engines run; processes of this machine if not given.
        installer: What makes environments; `Environments` if not given.
        model_cache_bytes: How much staged models may take before those that nobody uses go; None: any amount.
        unclaimed_timeout_s: How long engines go on without a node.
        patience: What is taken from an engine that does not answer.
    """

    def __init__(
        self,
        layout: Layout,
        control_address: str,
        token: str,
        node_id: str = "local",
        *,
        runtimes: Mapping[str, Runtime] = RUNTIMES,
        backend: ComputeBackend | None = None,
        installer: Installer | None = None,
        model_cache_bytes: int | None = None,
        unclaimed_timeout_s: float = 600.0,
        patience: Patience = Patience(),  # noqa: B008 - it never changes
    ) -> None:
        self._node_id = node_id
        self._boot_id = secrets.token_hex(8)
        self._layout = layout
        self._runtimes = runtimes
        self._backend: ComputeBackend = backend or LocalBackend(layout)
        self._installer = installer or Environments(layout.runtimes_dir)
        self._control = ControlLink(control_address, token, node_id)
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._adoption_over = asyncio.Event()
        self._orders: NodeOrders | None = None
        self._seen = 0
        self._stopping = False
        self._runs: dict[str, ReplicaRun] = {}
        self._machine: MachineShape = look(layout.data_dir)
        self._sharing = CoreSharing(find_cores(), self._machine.cores)
        self._runtime_reports: tuple[RuntimeReport, ...] = ()
        self._cache_report = ModelCacheReport()
        self._cache = ModelCache(layout.models_dir, model_cache_bytes)
        self._kept: dict[str, Claim] = {}
        credentials = Credentials(layout.credentials)
        self._stager = Stager(self._cache, runtimes, self._installer, self._on_change, credentials.options)
        self._around = Surroundings(
            layout=layout,
            backend=self._backend,
            stager=self._stager,
            cache=self._cache,
            runtimes=runtimes,
            share=self._share,
            machine=lambda: self._machine,
            changed=self._on_change,
            unclaimed_timeout_s=unclaimed_timeout_s,
            patience=patience,
        )

    async def run(self) -> None:
        """Work until `stop`. When cancelled, engines are left running for the next agent to adopt."""
        try:
            try:
                await self._adopt()
            finally:
                self._adoption_over.set()
            loops = [
                asyncio.create_task(work, name=f"node {name}")
                for name, work in (
                    ("orders", self._follow_orders()),
                    ("reports", self._report()),
                    ("memory", self._measure()),
                    ("load", self._weigh()),
                    ("machine", self._look()),
                    ("stop", self._stopped.wait()),
                )
            ]
            try:
                done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # only `stop` ends without an error
            finally:
                for task in loops:
                    task.cancel()
                await asyncio.gather(*loops, return_exceptions=True)
        finally:
            await asyncio.gather(self._stager.close(), *(run.release() for run in self._runs.values()))
            self._keep(frozenset())
            await self._control.close()

    async def stop(self, *, keep_replicas: bool = False) -> None:
        """Have `run`, begun before, return: with every replica drained and gone, or all left for the next agent."""
        self._stopping = True
        await self._adoption_over.wait()  # a replica found later would be left running
        if not keep_replicas:
            runs = list(self._runs.values())
            for run in runs:
                run.stop()
            await asyncio.gather(*(run.wait() for run in runs))
            with contextlib.suppress(ControlPlaneDown, TimeoutError):
                async with asyncio.timeout(_LAST_REPORT_TIMEOUT_S):
                    await self._control.report(self._now())
        self._stopped.set()

    async def _adopt(self) -> None:
        """Find what earlier agents left, before any order could start a second engine for the same replica."""
        for process in await self._backend.discover():
            entry = journal.read(process.directory)
            if entry is None:
                _log.warning("Replica %s has no record of its order: stopping it.", process.id)
                await process.stop()
            elif self._worth_keeping(process, entry):
                run = ReplicaRun(entry.order, self._around, process, entry.report)
                self._runs[process.id] = run
                self._sharing.adopt(process.id, process.cores())
                run.begin()
        self._backend.sweep()

    def _worth_keeping(self, process: EngineProcess, entry: journal.Entry) -> bool:
        """Whether there is something to do for it, or a failure to tell that control may not have heard."""
        return process.ended is None or entry.report.state is not ReplicaState.GONE

    async def _follow_orders(self) -> None:
        while True:
            try:
                orders = await self._control.orders(self._seen, ORDERS_WAIT_S)
            except ControlPlaneDown:
                self._seen = 0  # a control that starts again gets and gives everything anew
                await asyncio.sleep(_RETRY_S)
                continue
            if orders is not None and not self._stopping:
                self._obey(orders)
                self._seen = orders.generation

    def _obey(self, orders: NodeOrders) -> None:
        self._orders = orders
        self._keep(frozenset(orders.kept))
        ordered = {order.id: order for order in orders.replicas}
        for replica_id, run in self._runs.items():
            if replica_id not in ordered or ordered[replica_id].epoch != run.order.epoch:
                run.stop()
        for order in ordered.values():
            run = self._runs.get(order.id) or self._place(order)
            if order.wanted == "stop":
                run.stop()
            else:
                run.serving.profile = order.profile
                run.rest(wanted=order.wanted == "sleep")
        placed = [run.stage_order for run in self._runs.values() if run.state is ReplicaState.PLACED]
        self._stager.want([*orders.stages, *placed])
        self._on_change()

    def _keep(self, fingerprints: frozenset[str]) -> None:
        """Hold on to the models of living deployments, also while no replica of theirs runs."""
        for fingerprint in self._kept.keys() - fingerprints:
            self._kept.pop(fingerprint).release()
        for fingerprint in fingerprints - self._kept.keys():
            try:
                self._kept[fingerprint] = self._cache.claim(fingerprint)
            except OSError as error:
                _log.warning("Model %s cannot be claimed: %s", fingerprint[:12], error)

    def _place(self, order: ReplicaOrder) -> ReplicaRun:
        run = ReplicaRun(order, self._around)
        self._runs[order.id] = run
        if order.wanted == "run":
            run.begin()
        return run

    async def _report(self) -> None:
        while True:
            self._changed.clear()
            report = self._now()
            try:
                await self._control.report(report)
            except ControlPlaneDown as error:
                _log.debug("%s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            self._forget(report)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):  # wait_for can swallow a cancellation on Python 3.11
                    await self._changed.wait()

    def _forget(self, told: NodeReport) -> None:
        """Let go of replicas that are over, were told so, and are in no order any more."""
        if self._orders is None:
            return
        ordered = {(order.id, order.epoch) for order in self._orders.replicas}
        over = {ReplicaState.FAILED, ReplicaState.GONE}
        for report in told.replicas:
            run = self._runs.get(report.id)
            if run is not None and report.state in over and (report.id, report.epoch) not in ordered:
                del self._runs[report.id]
                self._backend.sweep()

    def _now(self) -> NodeReport:
        return NodeReport(
            node_id=self._node_id,
            boot_id=self._boot_id,
            orders_generation=self._seen,
            at=time.time(),
            memory_bytes=self._machine.memory_total_bytes,
            cores=self._cores,
            hardware=msgspec.to_builtins(self._machine),
            stages=self._stager.reports,
            replicas=tuple(run.report for run in self._runs.values()),
            runtimes=self._runtime_reports,
            model_cache=self._cache_report,
        )

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(_MEASURE_S)
            for run in list(self._runs.values()):
                await run.measure()

    async def _weigh(self) -> None:
        """What the replicas have to do whose number goes by that."""
        while True:
            await asyncio.sleep(_WEIGH_S)
            measured = [order.id for order in self._orders.replicas if order.measured] if self._orders else []
            runs = [self._runs[replica_id] for replica_id in measured if replica_id in self._runs]
            for failed in await asyncio.gather(*(run.weigh(self._cores) for run in runs), return_exceptions=True):
                if failed is not None:  # its number goes by what is known of the others meanwhile
                    _log.warning("A replica cannot be measured: %r", failed)

    async def _look(self) -> None:
        while True:
            try:
                self._runtime_reports, self._machine, self._cache_report = await asyncio.to_thread(self._look_once)
            except OSError as error:  # somebody removes what is looked at
                _log.warning("What is on the disk cannot be told now: %s", error)
            else:
                self._on_change()
            await asyncio.sleep(_LOOK_S)

    def _look_once(self) -> tuple[tuple[RuntimeReport, ...], MachineShape, ModelCacheReport]:
        reports = tuple(self._installer.inspect(runtime) for runtime in self._runtimes.values())
        machine = look(self._layout.data_dir)
        if self._machine.gpus and not machine.gpus:  # all at once: it is the driver that does not answer
            machine = msgspec.structs.replace(machine, gpus=self._machine.gpus)
        return reports, machine, self._cache.report()

    @property
    def _cores(self) -> int:
        return max(1, int(self._machine.cores))

    def _share(self, replica_id: str) -> Share:
        """What the engine of a replica that starts now computes with; the others make room for it."""
        self._share_cores(joining=replica_id)
        expected = sum(order.wanted == "run" for order in self._orders.replicas) if self._orders else 1
        return self._sharing.share(replica_id, expected)

    def _share_cores(self, joining: str = "") -> None:
        computing = [replica_id for replica_id, run in self._runs.items() if run.computes or replica_id == joining]
        for replica_id, cores in self._sharing.follow(computing).items():
            self._runs[replica_id].pin(cores)

    def _on_change(self) -> None:
        self._share_cores()
        self._changed.set()
