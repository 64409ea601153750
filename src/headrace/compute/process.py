"""The owner's end of a shim: one connection that claims the replica, follows it and finds its way back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from headrace.compute.backend import EngineExit
from headrace.compute.shim import record
from headrace.resources.errors import EngineDied

Adopt = Callable[[Path], Awaitable[None]]
"""Puts a new shim in the place of one that was killed."""

_TAIL_BYTES = 64 * 1024
_ANSWER_TIMEOUT_S = 10.0
_CLAIM_TIMEOUT_S = 15.0
_CLAIM_RETRY_S = 1.0
_PIN_PASSES = 5

_log = logging.getLogger(__name__)


class _Spec(msgspec.Struct):
    id: str
    epoch: int
    nonce: str
    shim_socket: str


class LocalProcess:
    """One replica on this machine. See `headrace.compute.backend.EngineProcess` for what each method promises.

    Args:
        directory: The replica's folder, with its `record.SPEC`.
        adopt: What to do when its shim is gone and its end is not on record.
    """

    def __init__(self, directory: Path, adopt: Adopt) -> None:
        self.directory = directory
        state = record.read_json(str(directory / record.STATE)) or {}
        self.pid: int = state.get("engine_pid", 0)
        self.shim_pid: int = state.get("shim_pid", 0)
        self._spec = msgspec.json.decode((directory / record.SPEC).read_bytes(), type=_Spec)
        self._adopt = adopt
        self._stop: dict[str, Any] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._end: asyncio.Future[EngineExit] = asyncio.get_running_loop().create_future()
        self._following: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The replica."""
        return self._spec.id

    @property
    def epoch(self) -> int:
        """The replica's epoch."""
        return self._spec.epoch

    @property
    def nonce(self) -> str:
        """The replica's nonce."""
        return self._spec.nonce

    @property
    def ended(self) -> EngineExit | None:
        """How it ended; None while it runs."""
        return self._end.result() if self._end.done() else None

    async def connect(self) -> None:
        """Claim the replica, through a new shim if the old one is gone; go on trying where that fails."""
        reader = None
        with contextlib.suppress(EngineDied):
            reader = await self._claim()
        if not self._end.done():
            self._following = asyncio.create_task(self._follow(reader), name=f"shim {self.id}")

    async def wait(self) -> EngineExit:
        """Wait for its end."""
        return await asyncio.shield(self._end)

    async def stop(self, *, at_once: bool = False) -> EngineExit:
        """Ask it to end and wait until it has; a shim that takes over in the meantime is asked too."""
        self._stop = {"op": "stop", "at_once": at_once or bool(self._stop and self._stop["at_once"])}
        self._say(self._stop)
        return await self.wait()

    async def release(self) -> None:
        """Give up the claim."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    def log_tail(self, lines: int) -> tuple[str, ...]:
        """The last lines of its output, the part that was put aside included."""
        log = self.directory / record.ENGINE_LOG
        text = _tail(log.with_name(f"{log.name}.1")) + _tail(log)
        return tuple(text[-2 * _TAIL_BYTES :].decode(errors="replace").splitlines()[-lines:])

    def cores(self) -> tuple[int, ...]:
        """What the kernel says of its main thread."""
        if self._end.done() or not self.pid:
            return ()
        try:
            return tuple(sorted(os.sched_getaffinity(self.pid)))
        except OSError:
            return ()

    def pin(self, cores: Sequence[int]) -> None:
        """Thread by thread, until a look at all of them finds none that runs elsewhere: new ones inherit."""
        for _ in range(_PIN_PASSES):
            threads = [thread for process in self._tree() for thread in _threads(process.pid)]
            if not sum(_move(thread, set(cores)) for thread in threads):
                return
        _log.warning("Threads of replica %s run on other cores than %s.", self.id, list(cores))

    def resident_bytes(self) -> int:
        """Proportional set size of the engine and its descendants."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def cpu_s(self) -> float:
        """User and system time."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def pids(self) -> frozenset[int]:
        """As they are now."""
        return frozenset(process.pid for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        """The engine and its descendants; empty when it has ended."""
        if self._end.done() or not self.pid:
            return []
        try:
            engine = psutil.Process(self.pid)
            return [engine, *engine.children(recursive=True)]
        except psutil.Error:
            return []

    async def _claim(self) -> asyncio.StreamReader | None:
        """Watch the replica; None when its life is over.

        Raises:
            EngineDied: It can be neither watched nor given up for dead.
        """
        deadline = time.monotonic() + _CLAIM_TIMEOUT_S
        while not self._read_exit():
            reader = await self._watch()
            if reader is not None or self._end.done():
                return reader
            if time.monotonic() > deadline:
                raise EngineDied(f"The shim of replica {self.id} does not answer.", evidence=self._spec.shim_socket)
            await self._adopt(self.directory)
        return None

    async def _watch(self) -> asyncio.StreamReader | None:
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._spec.shim_socket)
        except OSError:
            return None
        self._say({"op": "watch"})
        if self._stop is not None:
            self._say(self._stop)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                line = await _read_line(reader)
            if line and not self._take(msgspec.json.decode(line)):
                return reader
        self._writer.close()
        return None

    def _say(self, request: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(msgspec.json.encode({"nonce": self._spec.nonce, **request}) + b"\n")

    async def _follow(self, reader: asyncio.StreamReader | None) -> None:
        try:
            while True:
                while reader is not None and (line := await _read_line(reader)):
                    if self._take(msgspec.json.decode(line)):
                        return
                try:
                    reader = await self._claim()  # the shim is gone
                except EngineDied as error:
                    _log.warning("%s", error)
                    await asyncio.sleep(_CLAIM_RETRY_S)
                if self._end.done():
                    return
        finally:
            if self._writer is not None:
                self._writer.close()

    def _take(self, message: dict[str, Any]) -> bool:
        """Whether the message was the last."""
        if message["event"] == "exited":
            if not self._end.done():
                self._end.set_result(msgspec.convert(message, EngineExit))
            return True
        self.pid, self.shim_pid = message["engine_pid"], message["shim_pid"]
        return False

    def _read_exit(self) -> bool:
        found = record.read_json(str(self.directory / record.EXIT))
        return found is not None and self._take(found)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except OSError:  # reset by a shim that was killed
        return b""


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        return []


def _move(thread: int, cores: set[int]) -> bool:
    """Whether it had to be moved."""
    try:
        if os.sched_getaffinity(thread) == cores:
            return False
        os.sched_setaffinity(thread, cores)
    except OSError:  # it has just ended; or none of the cores is there any more, and it is better off as it is
        return False
    return True


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""
