"""An engine from its start on: brought to READY, put to sleep and woken, and watched, until it fails or is ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from headrace.compute.backend import EngineProcess
from headrace.node import profiling
from headrace.node.probe import EngineBroken, EngineProbe, Patience
from headrace.node.record import ReplicaRecord
from headrace.node.watch import watch
from headrace.resources.assignments import ReplicaOrder
from headrace.resources.errors import EngineStartTimeout, EngineWarmupFailed, Failure
from headrace.resources.states import ReplicaState
from headrace.runtimes import SleepMode

LOG_TAIL_LINES = 20
"""What an engine wrote last, as it is told and kept."""


class Serving:
    """One replica's.

    Args:
        order: What was ordered.
        record: What is said of the replica.
        socket: The engine's.
        patience: What is taken from an engine that does not answer.
        sleep_mode: How it sleeps; None where it cannot, or may not.

    Attributes:
        profile: What of it is to be measured before it is READY; may yet be ordered while it starts.
        sleep_mode: The same.
        rests: Whether it is to sleep.
    """

    def __init__(
        self,
        order: ReplicaOrder,
        record: ReplicaRecord,
        *,
        socket: Path,
        patience: Patience,
        sleep_mode: SleepMode | None,
    ) -> None:
        self._order = order
        self._record = record
        self._socket = socket
        self._patience = patience
        self._turned = asyncio.Event()
        self.profile = order.profile
        self.sleep_mode = sleep_mode
        self.rests = record.state in (ReplicaState.DOZING, ReplicaState.ASLEEP)

    def turn(self, *, rests: bool) -> None:
        """Have it sleep, or be awake; returns at once."""
        if rests != self.rests:
            self.rests = rests
            self._turned.set()

    async def run(self, process: EngineProcess) -> None:
        """See to an engine; ends by failing only.

        Raises:
            HeadraceError: It does not do what it should.
        """
        order = self._order
        probe = EngineProbe(self._socket, order.nonce, order.served_name, timeout_s=self._patience.timeout_s)
        try:
            if self._record.state in (ReplicaState.STARTING, ReplicaState.WARMING):
                await self._until_ready(process, probe)
            while True:
                await self._sleep_or_wake(probe)
                await watch(probe, self._patience, self._tell_health, self._turned)
        finally:
            await probe.close()

    def _tell_health(self, failure: Failure | None) -> None:
        if (failure is None) != (self._record.report.failure is None):
            self._record.note(failure=failure)

    async def _sleep_or_wake(self, probe: EngineProbe) -> None:
        """Bring it to where it is wanted; what is begun is ended first."""
        record = self._record
        while self.sleep_mode and record.state is not (ReplicaState.ASLEEP if self.rests else ReplicaState.READY):
            dozes = record.state in (ReplicaState.READY, ReplicaState.DOZING)
            record.move(ReplicaState.DOZING if dozes else ReplicaState.WAKING)
            took_s = await probe.turn(self.sleep_mode, asleep=dozes, timeout_s=self._patience.turn_s)
            if dozes:
                record.move(ReplicaState.ASLEEP, detail=f"Sleeping, memory released in {took_s:.1f} s.")
            else:
                record.move(ReplicaState.READY, detail=f"Awake after {took_s:.1f} s.")
        self._turned.clear()

    async def _until_ready(self, process: EngineProcess, probe: EngineProbe) -> None:
        order = self._order
        try:
            async with asyncio.timeout(order.startup_timeout_s):
                if self._record.state is ReplicaState.STARTING:
                    await probe.until_healthy()
                    self._record.move(ReplicaState.WARMING)
                warmup = await probe.warm_up(order.max_model_len)
                resident_bytes = await asyncio.to_thread(process.resident_bytes)
        except TimeoutError as error:
            raise self._too_late(process) from error
        profile = None
        warmup = msgspec.structs.replace(warmup, resident_bytes=resident_bytes)
        if (wanted := self.profile) is not None:
            self._record.note(detail=f"Measuring what a replica carries, for about {wanted.budget_s:.0f} s.")
            profile = await profiling.measure(self._socket, order, wanted, writes=warmup.output_tokens > 0)
            if profile.failure is not None and not await probe.healthy():
                raise EngineBroken("The engine broke while it was measured.", evidence=profile.failure.message)
        told = {"warmup": warmup, "resident_bytes": resident_bytes, "profile": profile}
        self._record.move(ReplicaState.READY, address=f"unix:{self._socket}", **told)

    def _too_late(self, process: EngineProcess) -> EngineWarmupFailed | EngineStartTimeout:
        evidence = "\n".join(process.log_tail(LOG_TAIL_LINES)) or "It wrote nothing."
        if self._record.state is ReplicaState.WARMING:
            return EngineWarmupFailed(
                "The engine was healthy and did not generate within its startup deadline.", evidence=evidence
            )
        return EngineStartTimeout(
            f"The engine was not healthy within {self._order.startup_timeout_s:g} s.",
            evidence=evidence,
            fix="Deploy with a longer startup timeout, or a smaller model.",
        )
