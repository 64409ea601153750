"""The processors that this process may use, by the memory that they are next to."""

from __future__ import annotations

import os
from pathlib import Path


def find_cores(system: Path = Path("/sys/devices/system")) -> tuple[tuple[int, ...], ...]:
    """One tuple of processor numbers for each memory node (NUMA); threads of one core stand side by side.

    Where Linux does not say, all are in one node.

    Args:
        system: The kernel's folder about this machine.
    """
    ours = os.sched_getaffinity(0)
    folders = sorted(system.glob("node/node[0-9]*"), key=lambda path: int(path.name.removeprefix("node")))
    nodes = [read_list(folder / "cpulist") & ours for folder in folders]
    nodes.append(ours - set().union(*nodes))
    return tuple(tuple(sorted(node, key=lambda core: _core_key(system, core))) for node in nodes if node)


def read_list(file: Path) -> set[int]:
    """The numbers in one of the kernel's lists, such as ``0-3,8``; none where there is no such file."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return set()
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def _core_key(system: Path, core: int) -> tuple[int, int]:
    siblings = read_list(system / f"cpu/cpu{core}/topology/thread_siblings_list")
    return min(siblings, default=core), core
