"""Whose processes a drill may kill: those of the server that it was told to drill, and no others."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace.cli.drill.processes import find
from headrace.resources.layout import Layout

URL = "http://127.0.0.1:8080"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """The data directory of a server whose supervisor is this process."""
    layout = Layout(tmp_path / "data")
    layout.data_dir.mkdir()
    layout.local_login.write_text(json.dumps({"url": URL, "key": "hr-x"}))
    with layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        yield layout


@pytest.fixture
def children() -> Iterator[ExitStack]:
    """Processes that end with the test."""
    with ExitStack() as stack:
        yield stack


def _child(children: ExitStack, *words: str) -> int:
    """A process that runs, has these words in its command, and waits for the end of its input.

    It says that it runs: for a moment after it was started, a process has no command yet.
    """
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", *words]
    child = children.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    assert child.stdout is not None
    assert child.stdout.readline() == b"\n"
    return child.pid


def test_each_kind_of_process_is_told_from_the_others(layout: Layout, children: ExitStack) -> None:
    """Of two gateways in one place it is the newer one; what is not there has no number."""
    processes, reason = find("http://localhost:8080/", layout)
    assert reason == ""
    assert processes is not None
    assert processes.newest("gateway") == {}
    _child(children, "-m", "headrace.server.gateway", "--number", "0")
    control = _child(children, "-m", "headrace.server.control")
    newer = _child(children, "-m", "headrace.server.gateway", "--number", "0")
    second = _child(children, "-m", "headrace.server.gateway", "--number", "1", "--gateways", "2")
    assert processes.newest("gateway") == {"0": newer, "1": second}
    assert processes.newest("control") == {"0": control}
    assert processes.newest("node") == {}


def test_only_what_names_the_data_directory_is_an_engine_of_it(layout: Layout, children: ExitStack) -> None:
    """A number that went to somebody else is not killed, nor is one that nobody has."""
    processes, _ = find(URL, layout)
    assert processes is not None
    assert processes.is_engine(_child(children, f"{layout.data_dir}/models/f"))
    assert not processes.is_engine(_child(children, "somebody", "else"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not processes.is_engine(ended.pid)


def test_the_processes_of_another_server_are_left_alone(layout: Layout, tmp_path: Path) -> None:
    """One at another address, and one that does not run; each with the reason."""
    processes, reason = find("http://127.0.0.1:9090", layout)
    assert processes is None
    assert f"is {URL}, not http://127.0.0.1:9090" in reason
    processes, reason = find(URL, Layout(tmp_path / "elsewhere"))
    assert processes is None
    assert reason.startswith("no server of this user runs")
