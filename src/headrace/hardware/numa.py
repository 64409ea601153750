"""The memory nodes of this machine: which processors are near which memory."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

_KIB = 1024
_TOTAL = re.compile(r"MemTotal:\s+(\d+) kB")


class NumaNode(msgspec.Struct, frozen=True):
    """One memory node.

    Attributes:
        number: As Linux counts them.
        cpus: Processors that are near it.
        memory_bytes: Its memory.
    """

    number: int
    cpus: tuple[int, ...]
    memory_bytes: int


def find_numa_nodes(folder: Path = Path("/sys/devices/system/node")) -> tuple[NumaNode, ...]:
    """The nodes with memory, by number; none where Linux does not tell, as in some containers."""
    found = []
    for path in folder.glob("node[0-9]*"):
        try:
            cpus = parse_cpu_list((path / "cpulist").read_text())
            total = _TOTAL.search((path / "meminfo").read_text())
        except (OSError, ValueError):
            continue
        if total and int(total[1]):
            found.append(NumaNode(int(path.name.removeprefix("node")), cpus, int(total[1]) * _KIB))
    return tuple(sorted(found, key=lambda node: node.number))


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Processors of a list as Linux writes it: ``0-3,8`` is 0, 1, 2, 3 and 8.

    Raises:
        ValueError: It is no such list.
    """
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return tuple(cpus)
