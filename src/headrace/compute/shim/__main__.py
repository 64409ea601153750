"""``python -S -P -m headrace.compute.shim [--adopt] REPLICA_DIR``: become a daemon, then start or adopt the engine.

The command itself returns when the shim is up, with exit status 0; else 1, with the reason on standard error, or
`record.HELD_STATUS`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import traceback

from headrace.compute.shim import record
from headrace.compute.shim.engine import adopt, start
from headrace.compute.shim.kin import Kin
from headrace.compute.shim.server import Shim, listen, remove_socket, write_exit

TYPE_CHECKING = False  # importing typing would cost each shim most of a megabyte
if TYPE_CHECKING:
    from typing import Any

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> int:
    """The part that the caller waits for."""
    replica_dir, adopting = sys.argv[-1], "--adopt" in sys.argv[1:-1]
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.setsid()
        if os.fork() == 0:
            _be_the_shim(replica_dir, adopting, tell)
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told, encoding="utf-8") as pipe:
        said = pipe.read()
    if said == "up":
        return 0
    sys.stderr.write(said)
    return record.HELD_STATUS if said == "held" else 1


def _be_the_shim(replica_dir: str, adopting: bool, tell: int) -> None:
    try:
        _detach(replica_dir, tell)
        if _take_lock(replica_dir):
            _serve(replica_dir, adopting, tell)
        else:
            os.write(tell, b"held")
    except BaseException:
        traceback.print_exc()
        os.write(tell, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


def _serve(replica_dir: str, adopting: bool, tell: int) -> None:
    spec = record.read_json(f"{replica_dir}/{record.SPEC}")
    state = record.read_json(f"{replica_dir}/{record.STATE}")
    if spec is None or os.path.exists(f"{replica_dir}/{record.EXIT}"):
        raise RuntimeError("There is nothing to run in this folder, or its life is over.")
    if state is not None and not adopting:
        raise RuntimeError("This replica was started before; it can only be adopted.")
    listener = listen(spec["shim_socket"])
    if not adopting:
        engine = start(spec, replica_dir, _identity())
    elif state is None or (adopted := adopt(state, replica_dir, _identity())) is None:
        _bury(spec, state, replica_dir)
        os.write(tell, b"up")
        return
    else:
        engine = adopted
    os.write(tell, b"up")
    os.close(tell)
    Shim(spec, replica_dir, listener, engine).run()


def _bury(spec: dict[str, Any], state: dict[str, Any] | None, replica_dir: str) -> None:
    """The engine ended while nobody looked, or was never started."""
    Kin(state["engine_pid"] if state else 0, replica_dir).end(engine_lives=False)
    write_exit(replica_dir, None, "")
    remove_socket(spec["engine_socket"])
    remove_socket(spec["shim_socket"])


def _identity() -> dict[str, Any]:
    pid = os.getpid()
    return {"boot_id": record.boot_id(), "shim_pid": pid, "shim_start": record.start_ticks(pid)}


def _detach(replica_dir: str, tell: int) -> None:
    os.umask(0o077)
    os.chdir("/")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(f"{replica_dir}/{record.SHIM_LOG}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(log, 2)
    # Whatever else the caller left open (uvloop leaves its ends of the pipes; a supervisor's pipe would look alive).
    os.closerange(3, tell)
    os.closerange(tell + 1, os.sysconf("SC_OPEN_MAX"))
    # Orphans of the engine become children of the shim, so that their end is seen and nothing outlives it unnoticed.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _take_lock(replica_dir: str) -> bool:
    """Be this replica's only shim for as long as this process lives; False when another one is."""
    descriptor = os.open(f"{replica_dir}/{record.LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
