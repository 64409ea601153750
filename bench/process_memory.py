"""What a family of processes has in memory: by shares, again and again; and the files that it has mapped."""

from __future__ import annotations

import re
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

EVERY_S = 0.05
_FILE = re.compile(r"[0-9a-f]+-[0-9a-f]+ .{4} [0-9a-f]+ \S+ [1-9]\d* +(/.*)")
"""The head of a mapping in ``/proc/PID/smaps``: its inode is not 0."""


class Memory(NamedTuple):
    """Proportional set sizes in bytes: a page that several processes share counts once among them.

    Attributes:
        total: All of it, of a page that programs outside the family have too its share only.
        anonymous: What programs allocated.
    """

    total: int
    anonymous: int


class Watched:
    """A process and its descendants under observation, by a thread of its own, until the block ends."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.peak = Memory(0, 0)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def restarted_peak(self) -> Memory:
        """The most until now; from here on it is the most since now."""
        peak, self.peak = self.peak, Memory(0, 0)
        return peak

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            with suppress(psutil.NoSuchProcess):
                self.peak = max(self.peak, family_memory(self._root))


def family_memory(root: psutil.Process) -> Memory:
    """What a process and all its descendants have now."""
    found = {"Pss": 0, "Pss_Anon": 0}
    for process in [root, *root.children(recursive=True)]:
        with suppress(OSError):  # it ended meanwhile
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in found:
                    found[name] += int(value.split()[0]) * 1024
    return Memory(*found.values())


def mapped_bytes(root: psutil.Process) -> int:
    """Mapped files that a process and its descendants have in memory: each once, whoever else has it mapped."""
    most: Counter[str] = Counter()
    for process in [root, *root.children(recursive=True)]:
        with suppress(OSError):  # it ended meanwhile
            most |= _files_of(process.pid)
    return most.total()


def _files_of(pid: int) -> Counter[str]:
    """Resident bytes by path, without the pages of which the process has its own copy."""
    found: Counter[str] = Counter()
    path = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if head := _FILE.fullmatch(line):
            path = head[1]
        elif "-" in name.partition(" ")[0]:
            path = None
        elif path and name in {"Rss", "Anonymous"}:
            found[path] += int(value.split()[0]) * 1024 * (1 if name == "Rss" else -1)
    return found
