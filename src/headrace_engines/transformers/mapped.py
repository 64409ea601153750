"""The pages of a checkpoint's file that a process has before it, and how it lets go of them."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import Any, NamedTuple

_MAPS = Path("/proc/self/maps")


class _Range(NamedTuple):
    begin: int
    end: int


class MappedFiles:
    """The files that this process has mapped now; none where the system does not tell."""

    def __init__(self) -> None:
        lines = _MAPS.read_text().splitlines() if _MAPS.exists() else []
        self._files = [_range_of(line) for line in lines if line.split()[4] != "0"]  # of a file with that inode
        self._advise = ctypes.CDLL(None, use_errno=True).madvise

    def let_go(self, tensor: Any) -> None:
        """Count the memory of a tensor that lies in a file no more as this process' own.

        It stays in the kernel's cache, for whoever maps the file next, and would be read from there if it were looked
        at again: what was changed in memory alone would be lost. Memory that is no file's is left as it is.
        """
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
        if begin < end and any(file.begin <= begin and end <= file.end for file in self._files):
            self._advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _range_of(line: str) -> _Range:
    begin, end = line.split(maxsplit=1)[0].split("-")
    return _Range(int(begin, 16), int(end, 16))
