"""``make test``: lint, types, and the test suite folder by folder, doing its own set-up.

What is heavy (the runtimes' environments, the demo model's weights and their converted form) is made once in the cache
folder and shared by every clone. Exit status 0 only if everything ran and passed; under ``CI=true`` also a test that
could not run fails.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from assets import DEFAULT_ENGINES, PYTHONS, prepare
from environment import ROOT, say
from packages import Package, install_packages

BIN = Path(sys.executable).parent
FOLDERS = ("unit", "engine", "clients", "system")
WORKERS = {"unit": ("-n", "2"), "engine": ("-n", "2", "--dist", "loadgroup")}


PACKAGES = (
    Package("curl", "curl", "the custom-weights document's commands are curl commands, run byte for byte"),
    Package("nodejs", "node", "azurite, Microsoft's emulator of Azure's blobs, is a program for Node"),
    Package("npm", "npm", "azurite is installed by it"),
)


class Tally(NamedTuple):
    """What a step came to."""

    name: str
    minutes: float
    ok: bool
    passed: int = 0
    failed: int = 0


def main() -> int:
    """Run what was asked for: nothing said means everything."""
    # A job in a shell's background ignores SIGINT, and so would all it starts; tests of Ctrl-C must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked = [word for word in sys.argv[1:] if word in {"lint", *FOLDERS}] or ["lint", *FOLDERS]
    extra = [word for word in sys.argv[1:] if word not in {"lint", *FOLDERS}]
    tallies = []
    missing: list[Package] = []
    if "lint" in asked:
        tallies += [_step("ruff", ["ruff", "check", "src", "tests", "bench", "tools"])]
        tallies += [_step("format", ["ruff", "format", "--check", "-q", "src", "tests", "bench", "tools"])]
        tallies += [_step("mypy", ["mypy"])]
    if folders := [folder for folder in asked if folder != "lint"]:
        missing = install_packages(PACKAGES)
        started = time.monotonic()
        environment = prepare(PYTHONS if "engine" in folders else DEFAULT_ENGINES, stores="system" in folders)
        tallies += [Tally("runtimes and model", (time.monotonic() - started) / 60, ok=True)]
        tallies += [_pytest(folder, environment, missing, extra) for folder in folders]
    return _summary(tallies, missing)


def _step(name: str, command: list[str]) -> Tally:
    say(name)
    started = time.monotonic()
    code = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, check=False).returncode
    return Tally(name, (time.monotonic() - started) / 60, code == 0)


def _pytest(folder: str, environment: dict[str, str], missing: list[Package], extra: list[str]) -> Tally:
    say(f"tests/{folder}")
    started = time.monotonic()
    selection = ["-m", " and ".join(f"not needs_{package.program}" for package in missing)] if missing else []
    command = [BIN / "pytest", f"tests/{folder}", "-q", "--durations=25", *WORKERS.get(folder, ()), *selection, *extra]
    output = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout
        for line in running.stdout:
            print(line, end="", flush=True)
            output.append(line)
    counts = dict.fromkeys(("passed", "failed", "error", "errors"), 0)
    for count, word in re.findall(r"(\d+) (passed|failed|errors?)\b", output[-1] if output else ""):
        counts[word] += int(count)
    failed = counts["failed"] + counts["error"] + counts["errors"]
    return Tally(
        f"tests/{folder}", (time.monotonic() - started) / 60, running.returncode == 0, counts["passed"], failed
    )


def _summary(tallies: list[Tally], missing: list[Package]) -> int:
    print("\nminutes  result  step")
    for tally in tallies:
        print(f"{tally.minutes:7.1f}  {'ok    ' if tally.ok else 'FAILED'}  {tally.name}")
    print(f"{sum(tally.minutes for tally in tallies):7.1f}          in all")
    failed = sum(tally.failed for tally in tallies) + sum(1 for tally in tallies if not tally.ok and not tally.failed)
    if missing:
        print(f"NOT RUN: the tests that need {', '.join(package.name for package in missing)}.")
        failed += bool(os.environ.get("CI") == "true")
    print(f"{sum(tally.passed for tally in tallies)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
