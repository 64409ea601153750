"""The form of every benchmark: a table, a line per goal, and both kept as JSON in ``bench/results``.

Machines are shared and noisy: numbers are compared within one run, printed, and never asserted.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Goal:
    """A line of the contract: what was wanted, what was measured, whether it was met (None: reported only)."""

    goal: str
    measured: str
    met: bool | None


@dataclass
class Report:
    """Collects rows and goals of one benchmark, prints them, keeps them.

    Attributes:
        name: ``make bench-NAME``.
        columns: Heads of the table; units in them.
    """

    name: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def row(self, *cells: object) -> None:
        """Add a row; floats are shown with three significant digits."""
        self.rows.append([f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells])

    def goal(self, goal: str, measured: str, met: bool | None) -> None:
        """Add a goal's line."""
        self.goals.append(Goal(goal, measured, met))

    def take_over(self, others: Callable[[str], bool]) -> None:
        """Keep what an earlier run found of parts that are not measured this time.

        Args:
            others: Tells by a row's first cell, or a goal up to its colon, whether it is of such a part.
        """
        path = RESULTS / f"{self.name}.json"
        if path.exists():
            before = json.loads(path.read_text())
            self.rows += [row for row in before["rows"] if others(row[0])]
            self.goals += [Goal(**goal) for goal in before["goals"] if others(goal["goal"].partition(":")[0])]

    def finish(self, *, keep: bool = True) -> None:
        """Print everything and write ``bench/results/NAME.json``.

        Args:
            keep: False for a run of parts, which must not replace the whole.
        """
        console = Console(width=140)
        table = Table(*self.columns, title=f"bench-{self.name}")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for goal in self.goals:
            met = {True: "met", False: "NOT met", None: "reported"}[goal.met]
            print(f"{goal.goal} | {goal.measured} | {met}")
        if not keep:
            return
        RESULTS.mkdir(exist_ok=True)
        content = {
            "name": self.name,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {"cores": os.cpu_count(), **_cpu(), "python": platform.python_version()},
            "columns": list(self.columns),
            "rows": self.rows,
            "goals": [asdict(goal) for goal in self.goals],
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


_MATRIX_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
"""What decides how fast a CPU multiplies matrices, and in which formats; its name often does not tell."""


def _cpu() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(told.get("flags", "").split())
    there = [name for name in _MATRIX_INSTRUCTIONS if name in flags]
    return {"cpu": told.get("model name", platform.processor()), "instructions": there}
