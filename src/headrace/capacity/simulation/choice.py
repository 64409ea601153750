"""Which replica of a simulated deployment gets the next request: of those that are ready, one with the least work."""

from __future__ import annotations

import heapq

from headrace.capacity.simulation.replica import Replica

_Entry = tuple[float, int, Replica]

_FEWEST = 1_000
"""Entries that a heap may have before what is out of date is thrown away."""


class Choice:
    """Two heaps, of all and of those that have a place; entries that are out of date are passed over when they come up.

    Args:
        places: Requests that a replica has at a time.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._all: list[_Entry] = []
        self._open: list[_Entry] = []
        self._most = _FEWEST
        self._number = 0

    def offer(self, replica: Replica) -> None:
        """It is ready, or its work has changed."""
        self._number += 1
        entry = (replica.work, self._number, replica)
        heapq.heappush(self._all, entry)
        if replica.outstanding < self._places:
            heapq.heappush(self._open, entry)
        if len(self._all) > self._most:
            self._all = self._valid(self._all, places=False)
            self._open = self._valid(self._open, places=True)
            self._most = max(_FEWEST, 4 * len(self._all))

    def least(self, *, places: bool) -> Replica | None:
        """The one with the least outstanding work; of those that have a place, where that matters."""
        heap = self._open if places else self._all
        while heap:
            if self._holds(heap[0], places=places):
                return heap[0][2]
            heapq.heappop(heap)
        return None

    def _holds(self, entry: _Entry, *, places: bool) -> bool:
        work, _, replica = entry
        current = replica.ready and work == replica.work
        return current and not (places and replica.outstanding >= self._places)

    def _valid(self, heap: list[_Entry], *, places: bool) -> list[_Entry]:
        newest = {id(entry[2]): entry for entry in sorted(heap) if self._holds(entry, places=places)}
        return sorted(newest.values())
