"""Making a virtual environment and filling it: venv, then its own pip, told step by step and stoppable."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.resources.errors import Cancelled, DiskFull, RuntimeInstallFailed
from headrace.runtimes.runtime import Runtime

TORCH_INDEX_VARIABLE = "HEADRACE_TORCH_INDEX"
"""Setting: address of a package index that is asked besides pip's own, such as PyTorch's for CPU builds."""

Progress = Callable[[str], None]
"""Called with a sentence for a person."""

_POLL_S = 0.5
_STOP_GRACE_S = 10.0
_EVIDENCE_LINES = 8
_KEPT_LINES = 60

_STEPS = (
    (re.compile(r"^Collecting ([^\s<>=!~;\[(]+)"), "Resolving {}"),
    (re.compile(r"^\s*Downloading (?:\S*/)?(\S+ \([^)]+\))"), "Downloading {}"),
    (re.compile(r"^Processing (?:\S*/)?(\S+\.whl)"), "Reading {}"),
    (re.compile(r"^\s*Building wheels? for ([^:(]+)"), "Building {}"),
    (re.compile(r"^Installing collected packages: (.+)"), "Installing {} packages"),
)
"""What pip 23 to 26 print about the steps that take long."""

_FIXES = (
    ("ensurepip", "Install Python's venv support, on Debian `apt install python3-venv`, and try again."),
    (
        "No matching distribution",
        f"Check pip's package index (`pip config list`); {TORCH_INDEX_VARIABLE} names one more for CPU builds.",
    ),
    ("Connection", "Check the network and pip's proxy settings (`pip config list`), and try again."),
)


def make_environment(
    path: Path, runtime: Runtime, lock: int, progress: Progress, cancelled: Callable[[], bool]
) -> None:
    """Make a virtual environment at `path` and install the runtime's requirements.

    Args:
        path: Does not exist yet.
        runtime: Whose requirements.
        lock: A descriptor that stays open in pip, so that its lock outlives a caller that is killed.
        progress: Called for each step.
        cancelled: Asked at least twice a second.

    Raises:
        Cancelled: ``cancelled()`` became true.
        DiskFull: The disk filled up.
        RuntimeInstallFailed: A command failed.
    """
    progress("Making the environment")
    _run(runtime.name, [sys.executable, "-m", "venv", str(path)], lock, progress, cancelled)
    requirements = path / "requirements.txt"
    requirements.write_text(runtime.requirements, encoding="utf-8")
    command = [str(path / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    index = os.environ.get(TORCH_INDEX_VARIABLE)
    extra = ["--extra-index-url", index] if index else []
    # Python compiles what is imported, when it is: pip would compile all of torch and transformers, for 20 s.
    options = ["--progress-bar", "off", "--no-compile", *extra]
    _run(runtime.name, [*command, *options, "-r", str(requirements)], lock, progress, cancelled)


def step(line: str) -> str:
    """What a line of pip's output tells a person; empty when nothing."""
    for pattern, sentence in _STEPS:
        match = pattern.match(line)
        if match:
            what = match[1].strip()
            return sentence.format(len(what.split(",")) if sentence.endswith("packages") else what)
    return ""


def _run(name: str, command: list[str], lock: int, progress: Progress, cancelled: Callable[[], bool]) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment | {"PYTHONUNBUFFERED": "1"},
        pass_fds=(lock,),
        start_new_session=True,
    )
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        for line in _lines(process):
            if line is None:
                if cancelled():
                    raise Cancelled(f"The installation of the runtime {name} was cancelled.")
                continue
            last.append(line)
            if sentence := step(line):
                progress(sentence)
        if process.wait() != 0:
            raise _failure(name, command, process.returncode, list(last))
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


def _failure(name: str, command: list[str], return_code: int, lines: list[str]) -> DiskFull | RuntimeInstallFailed:
    said = [line for line in lines if line.strip() and not line.startswith(("[notice]", "WARNING"))]
    evidence = "\n".join(said[-_EVIDENCE_LINES:]) or f"{command[0]} ended with status {return_code} and said nothing."
    if "No space left on device" in evidence:
        return DiskFull(
            f"The disk filled up while the runtime {name} was installed.",
            evidence=evidence,
            fix="`headrace clean` shows what can go; or set HEADRACE_RUNTIMES_DIR to a folder on a larger disk.",
        )
    fix = next((fix for sign, fix in _FIXES if sign in evidence), "Mend what pip says, and try again.")
    return RuntimeInstallFailed(f"The runtime {name} could not be installed.", evidence=evidence, fix=fix)
