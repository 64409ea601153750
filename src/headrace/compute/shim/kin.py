"""Everything that an engine has started, so that nothing of it is left running."""

from __future__ import annotations

import os
import signal
import time

from headrace.compute.shim.record import stat_fields

MARKER_VARIABLE = "HEADRACE_REPLICA_DIR"
"""In the environment of every engine, and so of whatever it starts."""

_END_TIMEOUT_S = 10.0
_POLL_S = 0.005
_PPID, _SESSION, _START = 1, 3, 19


class Kin:
    """The processes that belong to one engine.

    They are found by four signs, because each can be lost: the marker in the environment (programs that set their
    title overwrite it), the session (a daemon leaves it), the line of parents (an orphan's leads to its subreaper: the
    shim, but not the shim that adopted), and having been seen before.
    """

    def __init__(self, engine_pid: int, replica_dir: str) -> None:
        self._engine_pid = engine_pid
        self._marker = f"{MARKER_VARIABLE}={replica_dir}".encode()
        self._seen: set[tuple[int, str]] = set()

    def look(self, engine_lives: bool) -> set[int]:
        """Their numbers now. The engine's number names a session for sure only while the engine lives."""
        processes = {
            int(name): fields
            for name in os.listdir("/proc")
            if name.isdigit() and (fields := stat_fields(int(name))) and fields[0] not in "ZX"
        }
        session = str(self._engine_pid) if engine_lives else None
        found = {
            pid
            for pid, fields in processes.items()
            if fields[_SESSION] == session or (pid, fields[_START]) in self._seen or self._marked(pid)
        }
        me = os.getpid()
        grown = True
        while grown:
            children = {pid for pid, fields in processes.items() if int(fields[_PPID]) in found | {me}}
            grown = not children <= found
            found |= children
        found.discard(me)
        self._seen = {(pid, processes[pid][_START]) for pid in found}
        return found

    def end(self, engine_lives: bool) -> None:
        """Kill them and wait until none is left, or for ten seconds where the kernel holds one in a system call."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        while (pids := self.look(engine_lives)) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if engine_lives:
                return  # its end is told by the kernel, and what is left is ended then
            reap()
            time.sleep(_POLL_S)

    def _marked(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return self._marker in file.read().split(b"\0")
        except OSError:
            return False


def reap() -> dict[int, tuple[int, int]]:
    """Take the status of every child that has ended: wait status and peak resident bytes by process number."""
    ended: dict[int, tuple[int, int]] = {}
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = (status, usage.ru_maxrss * 1024)
