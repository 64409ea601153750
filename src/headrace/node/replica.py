"""One replica's life on this node, from its order to GONE or FAILED: one task that reads top to bottom."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from headrace.compute.backend import ComputeBackend, EngineExit, EngineProcess
from headrace.hardware import MachineShape
from headrace.node import chat_template
from headrace.node.cores import Cores
from headrace.node.launching import engine_spec, gpu_share, launch_of, why_ended
from headrace.node.load import LoadMeter
from headrace.node.planned_cache import planned_cache_bytes
from headrace.node.probe import EngineBroken, EngineBrokeTurning, EngineSilent, Patience
from headrace.node.record import ReplicaRecord
from headrace.node.serving import LOG_TAIL_LINES, Serving
from headrace.node.sharing import Share
from headrace.node.stager import Staged, Stager
from headrace.resources.assignments import ReplicaOrder, ReplicaReport, StageOrder
from headrace.resources.errors import EngineUnreachable, Failure, HeadraceError, InternalError
from headrace.resources.layout import Layout
from headrace.resources.states import ReplicaState
from headrace.runtimes import Runtime
from headrace.storage import Claim, ModelCache

_COMPUTING = (
    ReplicaState.STARTING,
    ReplicaState.WARMING,
    ReplicaState.READY,
    ReplicaState.DOZING,
    ReplicaState.WAKING,
    ReplicaState.DRAINING,
)

_DYING_S = 5.0
"""How long a broken engine is given to turn out dead: its connections break before its process ends."""

_log = logging.getLogger(__name__)


class Surroundings(msgspec.Struct, frozen=True):
    """What replicas have in common.

    Attributes:
        share: What the engine of a replica that starts now is to compute with.
        machine: The machine, as it was last looked at.
        cache: Where models' folders are; claimed for as long as anything runs from them.
        changed: Called when a report is worth sending at once.
        unclaimed_timeout_s: How long an engine runs without a node.
        patience: What is taken from an engine that does not answer.
    """

    layout: Layout
    backend: ComputeBackend
    stager: Stager
    cache: ModelCache
    runtimes: Mapping[str, Runtime]
    share: Callable[[str], Share]
    machine: Callable[[], MachineShape]
    changed: Callable[[], None]
    unclaimed_timeout_s: float
    patience: Patience


class ReplicaRun:
    """One replica.

    Args:
        order: What was ordered.
        around: What it shares with others.
        process: Its engine, when that was found and not started here.
        report: What was reported of it before.

    Attributes:
        order: The same.
        serving: What is done with its engine while that runs.
    """

    def __init__(
        self,
        order: ReplicaOrder,
        around: Surroundings,
        process: EngineProcess | None = None,
        report: ReplicaReport | None = None,
    ) -> None:
        self.order = order
        self._around = around
        self._process = process
        self._cores: Cores = ()
        self._stop_wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._meter: LoadMeter | None = None
        runtime = around.runtimes.get(order.runtime)
        self._record = ReplicaRecord(order, self._directory, around.changed, report)
        self.serving = Serving(
            order,
            self._record,
            socket=self._socket,
            patience=around.patience,
            sleep_mode=runtime.sleep_mode if runtime is not None and order.may_sleep else None,
        )

    @property
    def report(self) -> ReplicaReport:
        """What is told of it."""
        return self._record.report

    @property
    def state(self) -> ReplicaState:
        """Where it stands."""
        return self._record.state

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in (ReplicaState.FAILED, ReplicaState.GONE)

    @property
    def computes(self) -> bool:
        """Whether its engine runs, or is about to."""
        return self.state in _COMPUTING

    def pin(self, cores: Cores) -> None:
        """Have its engine compute on these cores from now on; on those that it has, without any."""
        self._cores = cores
        if self._process is not None and cores:
            self._process.pin(cores)

    @property
    def stage_order(self) -> StageOrder:
        """What has to be here before it can start."""
        return StageOrder(
            artifact_uri=self.order.artifact_uri,
            fingerprint=self.order.fingerprint,
            runtime=self.order.runtime,
            dtype=self.order.dtype,
            project=self.order.project,
        )

    @property
    def _directory(self) -> Path:
        return self._around.layout.replica_dir(self.order.id)

    @property
    def _socket(self) -> Path:
        return self._around.layout.engine_socket(self.order.id)

    def begin(self) -> None:
        """Start, or go on where an earlier node was."""
        if self.state is ReplicaState.DRAINING:
            self._stop_wanted.set()
        if not self.over:
            self._task = asyncio.create_task(self._run(), name=f"replica {self.order.id}")

    def stop(self) -> None:
        """Have it end; returns at once."""
        self._stop_wanted.set()
        if self.state is ReplicaState.FAILED or self._task is None:
            self._move(ReplicaState.GONE)

    def rest(self, *, wanted: bool) -> None:
        """Have it sleep, or be awake; returns at once. It ends where it cannot, or is to sleep and never ran here."""
        if self.serving.sleep_mode is not None and self._task is not None:
            self.serving.turn(rests=wanted)
        elif wanted or self.serving.rests:
            self.stop()

    async def wait(self) -> None:
        """Wait until it is over."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def release(self) -> None:
        """Stop looking after it and let its engine run."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._process is not None:
            await self._process.release()

    async def measure(self) -> None:
        """Look at its memory."""
        if self._process is not None and not self.over:
            resident_bytes = await asyncio.to_thread(self._process.resident_bytes)
            self._record.amend(resident_bytes=resident_bytes)

    async def weigh(self, cores: int) -> None:
        """Look at what it has to do.

        Args:
            cores: Those of the machine, for an engine that has none of its own.
        """
        if self._process is None or self.state is not ReplicaState.READY:
            return
        if self._meter is None:
            self._meter = LoadMeter(self._socket, self.order.nonce)
        load = await self._meter.measure(self._process, len(self._cores) or cores)
        if load is not None:
            self._record.amend(load=load)

    def _claim(self) -> Claim | None:
        """Keep its model here, also from an engine that was found running."""
        try:
            return self._around.cache.claim(self.order.fingerprint)
        except OSError as error:  # a full disk is no reason to end an engine
            _log.warning("Replica %s cannot claim its model: %s", self.order.id, error)
            return None

    async def _run(self) -> None:
        try:
            with self._claim() or nullcontext():
                await self._live_or_fail()
        finally:
            if self._meter is not None:
                await self._meter.close()
        if self._stop_wanted.is_set() and self.state is ReplicaState.FAILED:
            self._move(ReplicaState.GONE)

    async def _live_or_fail(self) -> None:
        try:
            await self._live()
        except (EngineUnreachable, EngineSilent) as error:
            await self._fail(error.failure, at_once=True)
        except HeadraceError as error:
            await self._fail(error.failure)
        except Exception as error:
            _log.exception("Replica %s", self.order.id)
            evidence = f"{type(error).__name__}: {error}"
            await self._fail(InternalError("The node failed at running a replica.", evidence=evidence).failure)

    async def _live(self) -> None:
        if self._process is None:
            staged = await self._unless_stopped(self._around.stager.staged(self.stage_order))
            if staged is None:
                self._move(ReplicaState.GONE)
                return
            self._process = await self._start(staged)
            self.pin(self._cores)  # others may have come while it was being started
        process = self._process
        serving = asyncio.create_task(self.serving.run(process))
        ending = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stop_wanted.wait())
        try:
            await asyncio.wait({serving, ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if (
                not stopping.done()
                and not ending.done()
                and isinstance(serving.exception(), EngineBroken | EngineBrokeTurning)
            ):
                await asyncio.wait({ending, stopping}, timeout=_DYING_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (serving, ending, stopping):
                task.cancel()
            await asyncio.gather(serving, ending, stopping, return_exceptions=True)
        if self._stop_wanted.is_set():
            await self._drain(process)
        elif process.ended is not None:
            self._died(process, process.ended)
        else:
            serving.result()  # it ends by failing only

    async def _unless_stopped(self, work: Coroutine[Any, Any, Staged]) -> Staged | None:
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop_wanted.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return None if self._stop_wanted.is_set() else working.result()
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    async def _start(self, staged: Staged) -> EngineProcess:
        order = self.order
        kv_cache_bytes = await asyncio.to_thread(planned_cache_bytes, self._around.layout, order)
        template = await asyncio.to_thread(self._template, staged)
        of_its_gpus = gpu_share(order, self._around.machine().gpus)
        share = self._around.share(order.id)  # nothing is awaited from here until its state shows that it computes
        self._cores = share.cores
        launch = launch_of(
            order,
            staged,
            share,
            socket=self._socket,
            kv_cache_bytes=kv_cache_bytes,
            chat_template=template,
            gpu_share=of_its_gpus,
        )
        command = self._around.runtimes[order.runtime].command(launch, staged.environment)
        self._move(ReplicaState.STARTING)  # on record before there is anything to find
        unclaimed_timeout_s = self._around.unclaimed_timeout_s
        process = await self._around.backend.start(
            engine_spec(order, command, share, unclaimed_timeout_s=unclaimed_timeout_s)
        )
        self._record.note(pid=process.pid)
        self._record.has_engine = True
        return process

    def _template(self, staged: Staged) -> Path | None:
        """A file with the version's own template, or with the folder's where engines would not find that."""
        own = self.order.chat_template
        return chat_template.write(self._directory, chat_template.hidden_in(staged.model_dir) if own is None else own)

    async def _drain(self, process: EngineProcess) -> None:
        self._move(ReplicaState.DRAINING)
        end = await process.stop()
        self._move(ReplicaState.GONE, exit_status=end.exit_status, resident_bytes=0)

    async def _fail(self, failure: Failure, *, at_once: bool = False) -> None:
        """End what runs of it, then say that it failed."""
        end = await self._process.stop(at_once=at_once) if self._process is not None else None
        self._move(
            ReplicaState.FAILED,
            failure=failure,
            exit_status=None if end is None else end.exit_status,
            log_tail=() if self._process is None else self._process.log_tail(LOG_TAIL_LINES),
            resident_bytes=0,
        )

    def _died(self, process: EngineProcess, end: EngineExit) -> None:
        self._move(
            ReplicaState.FAILED,
            failure=why_ended(
                self._around.runtimes[self.order.runtime],
                self.order,
                process,
                end,
                unclaimed_timeout_s=self._around.unclaimed_timeout_s,
                machine_memory_bytes=self._around.machine().memory_total_bytes,
            ),
            exit_status=end.exit_status,
            log_tail=process.log_tail(LOG_TAIL_LINES),
            resident_bytes=0,
        )

    def _move(self, state: ReplicaState, **changes: object) -> None:
        self._record.move(state, **changes)
        if self.over:
            chat_template.remove(self._directory)
