"""The seam: where an engine's process can run, and what its owner can ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, as one replica.

    Attributes:
        nonce: What the replica's shim demands of its callers.
        argv: The command.
        env: Its whole environment; nothing is inherited.
        memory_limit_bytes: Limit of its address space, or None.
        cores: The processors that it may run on; empty: all.
        stop_grace_s: How long it may take from SIGTERM to its end before it is killed.
        unclaimed_timeout_s: How long it runs when nobody watches it.
    """

    id: str
    epoch: int
    nonce: str
    argv: Sequence[str]
    env: Mapping[str, str]
    memory_limit_bytes: int | None = None
    cores: Sequence[int] = ()
    stop_grace_s: float = 30.0
    unclaimed_timeout_s: float = 600.0
    log_max_bytes: int = 50_000_000


class EngineExit(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine ended.

    Attributes:
        exit_status: Its exit status, negative for a signal; None when nobody was there to see it.
        at: When, in Unix seconds.
        peak_resident_bytes: The most memory that it had resident; 0 when unknown.
        why_stopped: ``request``, ``signal`` (SIGTERM to the shim) or ``unclaimed``; empty when it ended by itself.
        oom_kills: Processes that the kernel killed for want of memory, on the whole machine, while it ran.
    """

    exit_status: int | None
    at: float
    peak_resident_bytes: int = 0
    why_stopped: str = ""
    oom_kills: int = 0


class EngineProcess(Protocol):
    """One engine that was started, whether it still runs or not.

    Holding it is the claim: an engine that nobody holds ends after its `EngineSpec.unclaimed_timeout_s`.
    """

    @property
    def id(self) -> str:
        """The replica."""

    @property
    def epoch(self) -> int:
        """The replica's epoch."""

    @property
    def nonce(self) -> str:
        """The replica's nonce."""

    @property
    def pid(self) -> int:
        """The engine's process; 0 when it never had one."""

    @property
    def ended(self) -> EngineExit | None:
        """How it ended; None while it runs."""

    @property
    def directory(self) -> Path:
        """Where the replica's records are; its owner may keep some of its own there."""

    async def wait(self) -> EngineExit:
        """Wait for its end, whatever becomes of what watches it."""

    async def stop(self, *, at_once: bool = False) -> EngineExit:
        """Ask it to end, kill it after its grace, and return when nothing of it runs any more.

        Args:
            at_once: It has no grace: it is not expected to hear.
        """

    async def release(self) -> None:
        """Give up the claim and let it run."""

    def log_tail(self, lines: int) -> tuple[str, ...]:
        """The last lines of its output."""

    def cores(self) -> tuple[int, ...]:
        """The processors that it may run on now; empty when it has ended."""

    def pin(self, cores: Sequence[int]) -> None:
        """Have the engine, all that it started and all that it will start run on these processors only."""

    def resident_bytes(self) -> int:
        """Memory of the engine and all that it started, shared pages counted once; 0 when it has ended."""

    def cpu_s(self) -> float:
        """Processor time of the engine and all that it started and that still runs; 0 when it has ended."""

    def pids(self) -> frozenset[int]:
        """The numbers of the engine's process and of all that it started; none when it has ended."""


class ComputeBackend(Protocol):
    """Somewhere engines can run."""

    async def start(self, spec: EngineSpec) -> EngineProcess:
        """Start an engine.

        Raises:
            EngineDied: It could not be started.
        """

    async def discover(self) -> Sequence[EngineProcess]:
        """Every replica ever started here that is on record: running ones claimed, dead ones with their end."""

    def sweep(self) -> None:
        """Remove the records of replicas that ended long ago; those of the last twenty stay, for their logs."""
