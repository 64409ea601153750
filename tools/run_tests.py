"""``make test``: lint, types, and the test suite folder by folder, doing its own set-up.

What is heavy (the runtimes' environments, the demo model's weights and their converted form) is made once in the cache
folder and shared by every clone. Exit status 0 only if everything ran and passed; under ``CI=true`` also a test that
could not run fails.

A few tests that failed are run once more, alone. One that passes then is called flaky, by name, in the last lines: it
is a defect of the test or of what it tests, to be mended, but not of the change that happened to meet it.
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
WORKERS = {"unit": ("-n", "2")} | dict.fromkeys(("engine", "clients", "system"), ("-n", "2", "--dist", "loadscope"))
FEW = 3
"""Failed tests of a folder that are run once more; where more fail, something is broken."""


PACKAGES = (
    Package("curl", "curl", "the custom-weights document's commands are curl commands, run byte for byte"),
    Package("nodejs", "node", "azurite, Microsoft's emulator of Azure's blobs, and vendors' JavaScript run on it"),
    Package("npm", "npm", "azurite is installed by it"),
    Package("postgresql", "pg_ctlcluster", "the rows may be kept in PostgreSQL, and the tests start their own"),
)


class Tally(NamedTuple):
    """What a step came to."""

    name: str
    minutes: float
    ok: bool
    passed: int = 0
    failed: int = 0
    flaky: tuple[str, ...] = ()


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
        environment = prepare(
            PYTHONS if "engine" in folders else DEFAULT_ENGINES,
            stores="system" in folders,
            clients="clients" in folders,
        )
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
    command = [BIN / "pytest", f"tests/{folder}", "-q", "--durations=25", *selection, *extra]
    code, output = _shown([*command, *WORKERS.get(folder, ())], environment)
    passed, failed = _counts(output)
    suspects = re.findall(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", output, re.MULTILINE)
    if code == 1 and 0 < failed <= FEW and len(suspects) == failed:
        say(f"tests/{folder}: what failed, once more and alone")
        code, output = _shown([BIN / "pytest", "-q", *suspects], environment)
        again, failed = _counts(output)
        passed += again
    flaky = tuple(suspects) if code == 0 else ()
    return Tally(f"tests/{folder}", (time.monotonic() - started) / 60, code == 0, passed, failed, flaky)


def _shown(command: list[str | Path], environment: dict[str, str]) -> tuple[int, str]:
    """Run pytest and show what it prints; its exit status and that."""
    output = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout
        for line in running.stdout:
            print(line, end="", flush=True)
            output.append(line)
    return running.returncode, "".join(output)


def _counts(output: str) -> tuple[int, int]:
    """Tests that passed, and that failed or broke, going by pytest's last line."""
    last = output.rstrip().rpartition("\n")[2]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", last)}
    return counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)


def _summary(tallies: list[Tally], missing: list[Package]) -> int:
    print("\nminutes  result  step")
    for tally in tallies:
        print(f"{tally.minutes:7.1f}  {'ok    ' if tally.ok else 'FAILED'}  {tally.name}")
    print(f"{sum(tally.minutes for tally in tallies):7.1f}          in all")
    failed = sum(tally.failed for tally in tallies) + sum(1 for tally in tallies if not tally.ok and not tally.failed)
    if missing:
        print(f"NOT RUN: the tests that need {', '.join(package.name for package in missing)}.")
        failed += bool(os.environ.get("CI") == "true")
    flaky = [name for tally in tallies for name in tally.flaky]
    for name in flaky:
        print(f"FLAKY: {name} passed only at the second try")
    print(f"{sum(tally.passed for tally in tallies)} passed, {failed} failed, {len(flaky)} flaky")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
