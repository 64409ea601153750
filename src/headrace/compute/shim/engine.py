"""The engine's process: started by this shim, or adopted from one that was killed."""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from headrace.compute.shim import record
from headrace.compute.shim.kin import MARKER_VARIABLE, Kin, reap

TYPE_CHECKING = False  # importing typing would cost each shim most of a megabyte
if TYPE_CHECKING:
    from typing import Any, NoReturn

_KILL_ME_FIRST = 500
"""The engine's ``oom_score_adj``: the kernel ends it before the gateway."""

_CANNOT_EXECUTE = 127
"""The shell's exit status for a program that cannot be run."""


class Engine:
    """A running engine.

    Attributes:
        pid: Its process.
        start: When that started, in ticks.
        pidfd: Becomes readable when an adopted engine ends; None for a child, whose end comes as SIGCHLD.
        kin: The engine and all that it started.
        ended: Whether it has.
        exit_status: Its exit status, negative for a signal; None when unknown: adopted, so another's child.
        peak_resident_bytes: The most memory that it had resident.
    """

    def __init__(self, pid: int, start: int, replica_dir: str, pidfd: int | None) -> None:
        self.pid = pid
        self.start = start
        self.pidfd = pidfd
        self.kin = Kin(pid, replica_dir)
        self.ended = False
        self.exit_status: int | None = None
        self.peak_resident_bytes = 0

    def collect(self) -> None:
        """Take note of what has ended: the engine, and orphans of it that became this shim's children."""
        children = reap()
        if self.pid in children:
            status, self.peak_resident_bytes = children[self.pid]
            self.exit_status = os.waitstatus_to_exitcode(status)
            self.ended = True
        elif self.pidfd is not None and record.start_ticks(self.pid) != self.start:
            self.ended = True

    def observe(self) -> None:
        """Note what only a living process tells, for an adopted engine: nobody will hand it over at the end."""
        if self.pidfd is not None and not self.ended:
            self.peak_resident_bytes = max(self.peak_resident_bytes, record.peak_resident_bytes(self.pid))
            self.kin.look(engine_lives=True)

    def terminate(self) -> None:
        """Ask it to end."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                if self.pidfd is None:
                    os.kill(self.pid, signal.SIGTERM)  # a child's number is its own until it is reaped
                else:
                    signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)


def start(spec: dict[str, Any], replica_dir: str, shim: dict[str, Any]) -> Engine:
    """Start the engine and write `record.STATE`. The engine runs only once that is on the disk.

    Otherwise a shim killed between the two would leave an engine that nobody knows.
    """
    log = open_log(replica_dir)
    gate_out, gate_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(gate_in)
        _become_engine(spec, replica_dir, log, gate_out)
    os.close(gate_out)
    os.close(log)
    engine = Engine(pid, record.start_ticks(pid) or 0, replica_dir, pidfd=None)
    state = {"engine_pid": pid, "engine_start": engine.start, "oom_kills_at_start": record.oom_kills()}
    record.write_json(f"{replica_dir}/{record.STATE}", shim | state)
    os.write(gate_in, b"1")
    os.close(gate_in)
    return engine


def adopt(state: dict[str, Any], replica_dir: str, shim: dict[str, Any]) -> Engine | None:
    """Take over the engine of a shim that is no more; None when that engine is no more either."""
    pid, start_ticks = state["engine_pid"], state["engine_start"]
    if state["boot_id"] != record.boot_id() or record.start_ticks(pid) != start_ticks:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if record.start_ticks(pid) != start_ticks:  # the number went to another between the two
        os.close(pidfd)
        return None
    engine = Engine(pid, start_ticks, replica_dir, pidfd)
    engine.observe()
    record.write_json(f"{replica_dir}/{record.STATE}", state | shim)
    return engine


def open_log(replica_dir: str) -> int:
    """The engine's log, for appending: so it goes on at the right place after being cut."""
    return os.open(f"{replica_dir}/{record.ENGINE_LOG}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def bound_log(replica_dir: str, max_bytes: int) -> None:
    """Keep the log under twice `max_bytes`: copy it aside and cut it. Lines written between the two are lost.

    It is cut even where the copy fails: on a full disk that is what helps.
    """
    path = f"{replica_dir}/{record.ENGINE_LOG}"
    with contextlib.suppress(OSError):
        source = os.open(path, os.O_RDWR)
        try:
            size = os.fstat(source).st_size
            if size > max_bytes:
                with contextlib.suppress(OSError):
                    _copy(source, f"{path}.1", size)
                os.ftruncate(source, 0)
        finally:
            os.close(source)


def _copy(source: int, path: str, size: int) -> None:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        copied = 0
        while copied < size and (count := os.sendfile(target, source, copied, size - copied)):
            copied += count
    finally:
        os.close(target)


def _become_engine(spec: dict[str, Any], replica_dir: str, log: int, gate: int) -> NoReturn:
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file is as large as the model
        limit = spec["memory_limit_bytes"]
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if cores := spec.get("cores"):
            with contextlib.suppress(OSError):  # a core that is gone is no reason not to start
                os.sched_setaffinity(0, cores)
        with contextlib.suppress(OSError):
            score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(score, str(_KILL_ME_FIRST).encode())
            os.close(score)
        os.chdir(spec["cwd"])
        if os.read(gate, 1) != b"1":
            os._exit(_CANNOT_EXECUTE)  # the shim died before anybody could know of this process
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"] | {MARKER_VARIABLE: replica_dir})  # noqa: S606
    except BaseException as error:  # whatever it is, this copy of the shim must not go on as a shim
        os.write(2, f"The engine cannot be executed: {error}: {spec['argv']}\n".encode())
    os._exit(_CANNOT_EXECUTE)
