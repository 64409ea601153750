"""Ctrl-C during `headrace quickstart`, typed on a real terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

WAIT_S = 200.0


class Terminal:
    """A program on a terminal of its own, which is the program's controlling one: Ctrl-C reaches all that it starts."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        program = "import os, fcntl, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        starter = f"{program}; os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", starter, *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, words: str) -> None:
        """Take what it shows, until these words came."""
        deadline = time.monotonic() + WAIT_S
        while words not in self.shown:
            assert time.monotonic() < deadline, self.shown
            piece = self._read()
            assert piece, f"it ended without {words!r}: {self.shown}"

    def type_ctrl_c(self) -> None:
        """As a person at the keyboard does."""
        os.write(self._ours, b"\x03")

    def read_to_the_end(self) -> int:
        """Take all that is left; returns the exit status."""
        while self._read():
            pass
        return self.process.wait(timeout=WAIT_S)

    def close(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self) -> str:
        piece = b""
        with suppress(OSError):  # how a terminal says that nobody holds its other side any more
            piece = os.read(self._ours, 65536)
        self.shown += piece.decode(errors="replace")
        return piece.decode(errors="replace")


@contextmanager
def quickstart(data_dir: Path) -> Iterator[Terminal]:
    """`headrace quickstart` in a data directory of its own."""
    environment = os.environ | {"HEADRACE_DATA_DIR": str(data_dir), "TERM": "xterm-256color", "COLUMNS": "120"}
    for key in ("HEADRACE_URL", "HEADRACE_API_KEY", "HEADRACE_CONFIG_DIR", "NO_COLOR"):
        environment.pop(key, None)
    terminal = Terminal([sys.executable, "-m", "headrace.cli", "quickstart"], environment)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize("moment", ["Server", "Deployment", "Ctrl-C stops the server"])
def test_ctrl_c_stops_all_that_it_started(tmp_path: Path, moment: str) -> None:
    """Ctrl-C while the server starts, while the model is deployed, or after the answer leaves no process behind."""
    data_dir = tmp_path / "data"
    with quickstart(data_dir) as terminal:
        terminal.read_until(moment)
        terminal.type_ctrl_c()
        status = terminal.read_to_the_end()
    assert "nothing is left running" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert status == (0 if moment.startswith("Ctrl-C") else 130), terminal.shown
    left = subprocess.run(["pgrep", "-f", str(data_dir)], capture_output=True, text=True, check=False)
    assert not left.stdout, f"it left processes behind: {terminal.shown}"
