"""Which replica has seen how prompts begin: where their keys and values (KV cache) are likely to be still.

A prompt is cut at fixed places, and what lies before each cut is known by a number that also depends on all before it.
So two prompts that begin alike have the same first numbers, and the deepest that a replica has seen says how much of
the prompt it need not compute again. Engines themselves keep blocks of 16 tokens or so, and forget the longest unused;
nobody tells us which, so what is said here is a guess that costs a little time when it is wrong.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

CAPACITY = 32 * 1024
"""Numbers that are remembered, of one pool: some 6 MB at most. 16 of them are a conversation of 4 kB."""

_MOST_BITS = 64


def _cut_places() -> tuple[int, ...]:
    """Every 256 bytes (some 64 tokens) up to 4 kB, from there on each an eighth further than the last, up to 128 kB.

    46 in all: a prompt however long costs that many steps, and its depth is known to an eighth.
    """
    places = list(range(256, 4096 + 1, 256))
    while places[-1] < 128 * 1024:
        places.append(places[-1] * 9 // 8)
    return tuple(places)


CUTS = _cut_places()
_PIECES = tuple(pairwise((0, *CUTS)))


def prefixes(prompt: bytes) -> list[int]:
    """The numbers of a prompt's beginnings, one for each cut that it reaches. They hold within this process only."""
    numbers = []
    number = 0
    for begin, end in _PIECES:
        if end > len(prompt):
            break
        number = hash((number, prompt[begin:end]))
        numbers.append(number)
    return numbers


HolderT = TypeVar("HolderT", bound=Hashable)


class PrefixMap(Generic[HolderT]):
    """The beginnings that were seen lately, and by whom; the longest unused are forgotten.

    Who has seen one is a bit in a number, so that a popular beginning may be held by several.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._seen_by: OrderedDict[int, int] = OrderedDict()
        self._bits: dict[HolderT, int] = {}
        self._next_bit = 0

    def __len__(self) -> int:
        return len(self._seen_by)

    def follow(self, holders: Collection[HolderT]) -> None:
        """From now on there are these: newcomers have seen nothing, what is gone holds nothing."""
        self._bits = {holder: bit for holder, bit in self._bits.items() if holder in holders}
        new = [holder for holder in holders if holder not in self._bits]
        if self._next_bit + len(new) > max(_MOST_BITS, 2 * len(holders)):  # bits are not given twice: begin anew
            self._seen_by.clear()
            self._bits.clear()
            self._next_bit, new = 0, list(holders)
        for holder in new:
            self._bits[holder] = 1 << self._next_bit
            self._next_bit += 1

    def held_bytes(self, numbers: Sequence[int]) -> dict[HolderT, int]:
        """How much of a prompt with these beginnings each holder has seen; who has seen none of it is left out."""
        seen_by, mask = self._seen_by, -1
        masks: list[int] = []
        for number in numbers:
            mask &= seen_by.get(number, 0)
            if not mask:
                break
            masks.append(mask)
        if not masks:
            return {}
        held = {}
        for holder, bit in self._bits.items():
            if depth := _depth(masks, bit):
                held[holder] = CUTS[depth - 1]
        return held

    def note(self, numbers: Sequence[int], holder: HolderT) -> None:
        """A prompt with these beginnings goes to this holder."""
        seen_by, bit = self._seen_by, self._bits[holder]
        for number in reversed(numbers):  # so that of one prompt the ends are forgotten first
            seen_by[number] = seen_by.pop(number, 0) | bit
        while len(seen_by) > self._capacity:
            seen_by.popitem(last=False)


def _depth(masks: Sequence[int], bit: int) -> int:
    """In how many of them the bit is set. Once it is not, it is in none that follow."""
    return bisect_left(masks, 1, key=lambda mask: 0 if mask & bit else 1)
