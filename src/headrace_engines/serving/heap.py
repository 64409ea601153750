"""Memory that the C library keeps after a program freed it, and how the kernel gets it back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

LEAST_BYTES = 32 * 2**20
"""Less than this is not worth a walk through the heap, nor the page faults of whoever uses that memory next."""

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, other C libraries keep less


def give_back() -> None:
    """Give every free page of the heap back.

    By itself glibc gives back what is free at the heap's end, and larger blocks at once; "larger" it learns from the
    blocks that it sees freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD).
    """
    if _trim is not None:
        _trim(0)


class FreedBlocks:
    """Blocks that were freed within a budget, and may still be in memory: they count until they are given back.

    While a budget is not used up they may stay, for the next block costs less there than in fresh pages (copying a
    cache of 100 MB into fresh ones took three to four times as long).

    Args:
        budget_bytes: For what is in use and what was freed together.
        give_back: Gives back what was freed; where blocks are not the C library's, their allocator's own.
    """

    def __init__(self, budget_bytes: int, give_back: Callable[[], object] = give_back) -> None:
        self._budget_bytes = budget_bytes
        self._give_back = give_back
        self._freed_bytes = 0

    def add(self, freed_bytes: int, used_bytes: int) -> None:
        """Count a block that was freed; give all back if they do not fit beside what is in use."""
        self._freed_bytes += freed_bytes
        if self._freed_bytes >= LEAST_BYTES and self._freed_bytes + used_bytes > self._budget_bytes:
            self._give_back()
            self._freed_bytes = 0
