"""Making a virtual environment and filling it: venv, then its own pip, told step by step and stoppable."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from headrace.resources.errors import Cancelled, DiskFull, RuntimeInstallFailed
from headrace.runtimes.child import run_to_end
from headrace.runtimes.runtime import Installable

TORCH_INDEX_VARIABLE = "HEADRACE_TORCH_INDEX"
"""Setting: address of a package index that is asked besides pip's own, such as PyTorch's for CPU builds."""

Progress = Callable[[str], None]
"""Called with a sentence for a person."""

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
    path: Path, runtime: Installable, lock: int, progress: Progress, cancelled: Callable[[], bool]
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
    options = ["--progress-bar", "off", "--no-compile", *(["--no-deps"] if runtime.complete else []), *extra]
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
    last: deque[str] = deque(maxlen=_KEPT_LINES)

    def hear(line: str | None) -> None:
        if line is None:
            return
        last.append(line)
        if sentence := step(line):
            progress(sentence)

    status = run_to_end(command, environment | {"PYTHONUNBUFFERED": "1"}, lock, hear, cancelled)
    if status is None:
        raise Cancelled(f"The installation of the runtime {name} was cancelled.")
    if status != 0:
        raise _failure(name, command, status, list(last))


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
