"""The process that computes, as the shell sees it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from headrace_engines.openvino.messages import Fatal, FromWorker, Inbox, Load, Loaded, framed
from headrace_engines.serving.fatal import FatalError

_MODULE = "headrace_engines.openvino.worker"
_READ_BYTES = 2**16


class PipelineProcess:
    """Starts with this; ends when `wire` is closed.

    Attributes:
        wire: The socket to it.
        pid: Its process id.
    """

    def __init__(self) -> None:
        self.wire, theirs = socket.socketpair()
        self._oom_kills = _oom_kills()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

        self.pid = self._process.pid

    def load(self, order: Load) -> Loaded:
        """Load a model. Blocks.

        Raises:
            FatalError: It cannot be served.
        """
        self.wire.sendall(framed(order))
        inbox: Inbox[FromWorker] = Inbox(FromWorker)
        while data := self.wire.recv(_READ_BYTES):
            for message in inbox.messages(data):
                if isinstance(message, Fatal):
                    raise FatalError(message.code, message.message, evidence=message.evidence)
                if isinstance(message, Loaded):
                    return message
        raise self.end()

    def end(self) -> FatalError:
        """What it means that it is gone though nobody asked it to go. Blocks for as long as a process takes to end."""
        status = self._process.wait()
        if status == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            evidence = "The kernel ended processes for want of memory meanwhile (/proc/vmstat, oom_kill)."
            return FatalError("ENGINE_OUT_OF_MEMORY", "The process that computes was killed.", evidence=evidence)
        return FatalError("ENGINE_DIED", "The process that computes ended by itself.", evidence=f"exit status {status}")


def _oom_kills() -> int:
    """Processes that the kernel killed for want of memory since the machine started."""
    lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
