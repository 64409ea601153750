"""The promises of the process that starts vLLM's server, kept with small servers of the tests' own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from headrace_engines.vllm.__main__ import remove_stale_socket

TIMEOUT_S = 60


def start(tmp_path: Path, server: str, *arguments: str) -> subprocess.Popen[str]:
    """The launcher with a server that is a program of Python."""
    run = f"from headrace_engines.vllm.__main__ import run; run({[sys.executable, '-c', server, *arguments]!r})"
    return subprocess.Popen(
        [sys.executable, "-c", run],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )


def said(process: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_alive(pid: int) -> bool:
    """Whether a process runs and is not only waiting to be collected."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.parametrize(
    ("ending", "status"),
    [("raise SystemExit(0)", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_it_ends_as_the_server_ended(tmp_path: Path, ending: str, status: int) -> None:
    """Exit status or signal, so that who reads it learns how the server ended."""
    assert start(tmp_path, ending).wait(TIMEOUT_S) == status


def test_it_waits_for_what_the_server_leaves_and_leaves_nothing(tmp_path: Path) -> None:
    """An orphan of the server ends first; its files of the time between are gone with their folder."""
    orphan = "import time, pathlib; time.sleep(0.5); pathlib.Path('told').write_text('by the orphan')"
    server = (
        "import os, subprocess, sys, tempfile;"
        "open(os.path.join(tempfile.gettempdir(), 'a-socket'), 'w');"
        "assert os.environ['VLLM_RPC_BASE_PATH'] == tempfile.gettempdir();"
        f"subprocess.Popen([sys.executable, '-c', {orphan!r}], cwd=sys.argv[1])"
    )
    process = start(tmp_path, server, str(tmp_path))
    assert process.wait(TIMEOUT_S) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["told"]


def test_sigterm_is_handed_on(tmp_path: Path) -> None:
    """The server ends in its own time and its own way."""
    server = (
        "import signal, sys, time;"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5));"
        "print('ready', flush=True); time.sleep(60)"
    )
    process = start(tmp_path, server)
    assert said(process) == "ready"
    process.terminate()
    assert process.wait(TIMEOUT_S) == 5
    assert list(tmp_path.iterdir()) == []


def test_when_it_is_killed_the_server_is_asked_to_end(tmp_path: Path) -> None:
    """Nobody else would ask it."""
    process = start(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    pid = int(said(process))
    process.kill()
    process.wait(TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)  # another's child: there is no event to wait for
    assert not is_alive(pid)


def test_a_socket_that_nobody_listens_on_is_removed_and_a_live_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM would refuse to start beside the first, and must refuse beside the second."""
    monkeypatch.chdir(tmp_path)  # a short path
    stale, live = Path("stale"), Path("live")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(stale))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(live))
        listener.listen()
        for path in (stale, live, Path("none")):
            remove_stale_socket(["server", "--uds", str(path)])
        assert (stale.exists(), live.exists()) == (False, True)
    remove_stale_socket(["server"])
