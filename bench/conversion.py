"""How fast a model is written anew, as a share of what ``cp`` reaches on the same files; both until the disk has all.

Everyone in turns in one run. Ours twice: the whole command, with Python's start and the doctor's two looks, which take
the same time whatever the model's size; and the writing alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from headrace.storage import make_new, open_artifacts
from headrace.weights.conversion import plan_folder, write_folder
from report import Report, median

PROGRAM = Path(__file__).with_name("conversion_sources.py")
CASES: dict[str, tuple[str, tuple[str, ...], float | None]] = {
    "pickles, bit for bit": ("pickles", (), 0.8),
    "safetensors, format noted": ("unmarked", (), 0.8),
    "pickles, rounded to bfloat16": ("pickles", ("--dtype", "bfloat16"), None),
    "pickles whose matrices lie transposed": ("turned", (), None),
}
"""Name, folder, options, and the share of cp that is the goal."""


def copied(source: Path, target: Path) -> None:
    """``cp``, and every file on the disk."""
    subprocess.run(["cp", "-r", source, target], check=True)
    subprocess.run(["sync", *(str(path) for path in target.rglob("*"))], check=True)


class Cost(NamedTuple):
    """What some work took: on the clock, and of processors, which others beside hardly change."""

    wall_s: float
    cpu_s: float


def timed(work: Callable[[Path], None], scratch: Path) -> Cost:
    """The cost of some work on a new folder, which is removed."""
    target = scratch / "target"
    used_s, began_s = sum(os.times()[:4]), time.perf_counter()
    work(target)
    cost = Cost(time.perf_counter() - began_s, sum(os.times()[:4]) - used_s)
    shutil.rmtree(target)
    subprocess.run(["sync", "-f", str(scratch)], check=True)  # what was removed is nobody's cost
    return cost


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mb", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    columns = [
        "cp, MB/s",
        "writing alone",
        "of cp",
        "the command",
        "of cp",
        "CPU of cp, s",
        "of writing",
        "of the command",
    ]
    report = Report("conversion", ["case", "source, MB", *columns])
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        size = str(arguments.size_mb)
        python, small = os.environ["HEADRACE_TEST_ENGINE_PYTHON"], os.environ["HEADRACE_TEST_MODEL"]
        subprocess.run([python, str(PROGRAM), folder, size, small], check=True)
        for name, (form, options, goal) in CASES.items():
            source = scratch / form
            megabytes = sum(path.stat().st_size for path in source.iterdir()) / 1e6
            rounds = [measured(source, scratch, options) for _ in range(arguments.rounds)]
            wall = [median([each[which].wall_s for each in rounds]) for which in range(3)]
            cpu = [median([each[which].cpu_s for each in rounds]) for which in range(3)]
            alone, whole = (median([each[0].wall_s / each[which].wall_s for each in rounds]) for which in (1, 2))
            rates = [f"{megabytes / each:.0f}" for each in wall]
            report.row(name, f"{megabytes:.0f}", rates[0], rates[1], alone, rates[2], whole, *cpu)
            met = None if goal is None else alone >= goal
            told = f"{alone:.2f} writing alone, {whole:.2f} the command; of CPU {cpu[0] / cpu[1]:.2f}"
            report.goal(f"{name}: {goal or 'a share'} of cp", told, met)
    report.finish()
    return 0


def measured(source: Path, scratch: Path, options: tuple[str, ...]) -> tuple[Cost, Cost, Cost]:
    """What ``cp``, writing alone and the command cost, one after the other on a source that is in memory."""

    def write(target: Path) -> None:
        plan = plan_folder(open_artifacts(str(source)), "bfloat16" if "bfloat16" in options else "own")
        make_new(target, plan.size_bytes, lambda folder: write_folder(plan, source, folder))

    def convert(target: Path) -> None:
        command = [sys.executable, "-m", "headrace.cli", "convert", str(source), str(target), "--json", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    for path in source.iterdir():
        path.read_bytes()
    return timed(lambda target: copied(source, target), scratch), timed(write, scratch), timed(convert, scratch)


if __name__ == "__main__":
    sys.exit(main())
