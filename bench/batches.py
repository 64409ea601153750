"""The transformers engine's batches beside ``model.generate`` in static batches of the same size, without a server.

Compared is CPU time of the process, so other work beside hardly counts; ratios are of the same round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from report import Report

PROGRAM = Path(__file__).with_name("offline_batches.py")
SOURCE = PROGRAM.parents[1] / "src"
MODELS = ("t5", "bart", "mamba", "phi3")
THREADS = 2
GOAL_RATIO = 0.8


def main() -> int:
    """Measure the models that the arguments name, or all."""
    models = sys.argv[1:] or MODELS
    python = os.environ["HEADRACE_TEST_ENGINE_PYTHON"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [python, str(PROGRAM), str(THREADS), *models]
    lines = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    rounds = defaultdict(list)
    for line in map(json.loads, lines):
        rounds[line["model"], line["concurrency"]].append((line["static"], line["ours"]))
    report = Report("batches", ["model", "at once", "static, tokens/s of CPU", "ours", "ratio"])
    for (model, concurrency), measured in rounds.items():
        static, ours = (statistics.median(each) for each in zip(*measured, strict=True))
        ratio = statistics.median(mine / theirs for theirs, mine in measured)
        report.row(model, concurrency, static, ours, ratio)
        goal = f"{model}, {concurrency} at once: {GOAL_RATIO} of static batches"
        report.goal(goal, f"{ratio:.2f}", ratio >= GOAL_RATIO)
    report.finish(keep=tuple(models) == MODELS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
