"""Notices that what computes stands still while requests wait for it.

An engine answers ``GET /health`` in a process that does not compute, so its answer alone says nothing of one that is
stopped, or waits for ever. Processes that compute use the processor. On Linux; elsewhere nothing is noticed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

FROZEN_AFTER_S = 30.0
"""A step that takes this long uses the processor all the while."""

_READ_EVERY_S = 1.0
_STOPPED = frozenset("Tt")
"""States of a process that was stopped by a signal or a debugger (``man 5 proc_pid_stat``)."""


class Compute(NamedTuple):
    """Who computes, and whether there is anything to do.

    Attributes:
        pids: The processes; empty for none but this one.
        waiting: Requests that wait for them.
    """

    pids: Collection[int]
    waiting: int


@runtime_checkable
class ComputesElsewhere(Protocol):
    """A `Generator` whose work is done by other processes."""

    def compute(self) -> Compute:
        """Who computes now, without waiting for them."""


class FrozenWatch:
    """Looks at what computes, as often as it is asked and no more than once a second.

    Args:
        after_s: Frozen is what used no processor for this long while requests waited.
        clock: Seconds, monotonic.
    """

    def __init__(self, after_s: float = FROZEN_AFTER_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._after_s = after_s
        self._read_every_s = min(_READ_EVERY_S, after_s / 4)
        self._clock = clock
        self._read_at = 0.0
        self._still_since: float | None = None
        self._used: dict[int, int] = {}

    def frozen(self, compute: Callable[[], Compute]) -> bool:
        """Whether what computes stands still; to be asked with every health check.

        Args:
            compute: Says who computes; called when it is time to look again.
        """
        now = self._clock()
        if self._still_since is None or now - self._read_at >= self._read_every_s:
            # Who has not looked for long (a machine that slept) begins anew.
            if now - self._read_at > self._after_s / 2:
                self._still_since = None
            self._look(compute(), now)
            self._read_at = now
        return self._still_since is not None and now - self._still_since >= self._after_s

    def _look(self, compute: Compute, now: float) -> None:
        processes = {pid: process for pid in compute.pids if (process := _read(pid)) is not None}
        used = {pid: process.ticks for pid, process in processes.items()}
        if not processes or compute.waiting == 0:
            self._still_since = None
        elif self._still_since is None or (used != self._used and not _any_stopped(processes.values())):
            self._still_since = now
        self._used = used


def descendants(pid: int) -> list[int]:
    """The living processes that a process started, and theirs; not itself."""
    children: dict[int, list[int]] = {}
    for each in _all_pids():
        if (process := _read(each)) is not None:
            children.setdefault(process.parent, []).append(each)
    found = list(children.get(pid, ()))
    for each in found:  # grows as it goes
        found += children.get(each, ())
    return found


class _Process(NamedTuple):
    state: str
    parent: int
    ticks: int


def _any_stopped(processes: Collection[_Process]) -> bool:
    """One that is stopped does not come back by itself, however often others look for its answer."""
    return any(process.state in _STOPPED for process in processes)


def _all_pids() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    yield from (int(name) for name in names if name.isdigit())


def _read(pid: int) -> _Process | None:
    """None when it is gone, or where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before may hold anything
    return _Process(fields[0].decode(), int(fields[1]), int(fields[11]) + int(fields[12]))
