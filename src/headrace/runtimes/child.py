"""A program run to its end for its work alone: its output line by line, stoppable, with nothing of it left running."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

_POLL_S = 0.5
_STOP_GRACE_S = 10.0


def run_to_end(
    argv: Sequence[str],
    env: Mapping[str, str],
    lock: int,
    hear: Callable[[str | None], None],
    cancelled: Callable[[], bool],
) -> int | None:
    """Run a program, and end it and what it started if that is no longer wanted.

    Args:
        argv: The command.
        env: Its whole environment.
        lock: A descriptor that stays open in it, so that a lock outlives a caller that is killed.
        hear: Called with each line of its output, errors included, and with None at least twice a second.
        cancelled: Asked as often.

    Returns:
        Its exit status, negative for a signal; None if ``cancelled()`` became true.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        pass_fds=(lock,),
        start_new_session=True,
    )
    try:
        for line in _lines(process):
            if line is None and cancelled():
                return None
            hear(line)
        return process.wait()
    finally:
        _end(process)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str | None]:
    """Lines as they come, and None at least twice a second."""
    assert process.stdout is not None
    rest = b""
    while True:
        yield None
        if select.select([process.stdout], [], [], _POLL_S)[0]:
            chunk = os.read(process.stdout.fileno(), 65536)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            if not chunk:
                yield from [rest.decode(errors="replace")] if rest else []
                return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of it running."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
