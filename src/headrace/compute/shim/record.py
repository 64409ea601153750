"""What a shim writes down, and how a process is told from a later one with the same number."""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False  # importing typing would cost each shim most of a megabyte
if TYPE_CHECKING:
    from typing import Any

SPEC = "spec.json"
"""Written by the node before the shim starts: what to run. Holds the nonce."""

STATE = "state.json"
"""Written by the shim when the engine has a process: who runs."""

EXIT = "exit.json"
"""Written by the shim when nothing runs any more: how it ended. With it, a replica's life is over."""

ENGINE_LOG = "engine.log"
"""Standard output and error of the engine, written by the engine itself."""

SHIM_LOG = "shim.log"
"""What goes wrong in the shim."""

LOCK = "shim.lock"
"""Held by the shim for its whole life: no replica has two."""

HELD_STATUS = 3
"""Exit status of the shim's command when another shim has this replica."""


def read_json(path: str) -> dict[str, Any] | None:
    """A record, or None when it was never written."""
    try:
        with open(path, "rb") as file:
            value: dict[str, Any] = json.load(file)
            return value
    except FileNotFoundError:
        return None


def write_json(path: str, value: dict[str, Any]) -> None:
    """Write a record whole or not at all, readable by this user only, and on the disk when this returns."""
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, json.dumps(value).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of ``/proc/PID/stat``); None once it has ended.

    A zombie has ended. Number and start together name a process for as long as the machine is up.
    """
    fields = stat_fields(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def stat_fields(pid: int) -> list[str] | None:
    """Fields 3 (state) and on of ``/proc/PID/stat``, or None when there is no such process."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        # The name in field 2 may hold anything, so what counts begins after its last parenthesis.
        return os.read(descriptor, 4096).decode(errors="replace").rpartition(")")[2].split()
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)


def boot_id() -> str:
    """Changes with every boot of the machine: process numbers of an earlier one mean nothing."""
    return _proc_text("/proc/sys/kernel/random/boot_id").strip()


def oom_kills() -> int:
    """Processes that this machine's kernel has killed for want of memory since boot, control groups included."""
    for line in _proc_text("/proc/vmstat").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def peak_resident_bytes(pid: int) -> int:
    """The most memory that a living process has had resident; 0 when it cannot be read."""
    for line in _proc_text(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _proc_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
