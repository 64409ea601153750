"""Takes in what gateways wrote down of requests, each line once, and deletes what is taken in.

How far a segment was read is written in the transaction that adds its lines to the sums, and to rollouts' tallies. So
whoever is killed, and when, the next one goes on behind the last line that counts. A segment is deleted once all of it
is in the sums and nobody writes it any more, and forgotten once the disk has forgotten it too: else a power cut could
bring it back, to count twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from headrace.control.restarts import delay_s
from headrace.control.rollouts.counting import count_requests
from headrace.resources.usage import SEGMENT_SUFFIX, hour_of, read_lines
from headrace.store import Store, Transaction

INGEST_EVERY_S = 1.0
PART_BYTES = 2**20
"""Some thousand lines."""

KEPT_S = 1100 * 86400.0
"""How long sums are kept: three years, so that one can be held against the two before it."""

FORGET_EVERY_S = 3600.0

NAMELESS_S = 3600.0
"""A segment gets its name within the moment in which it is made. One that has had none for so long never will: its
gateway was killed in between."""

_LOGGER = logging.getLogger(__name__)


class UsageIngester:
    """From the gateways' segments to sums by hour.

    Args:
        store: Where the sums are.
        folder: Where segments are; need not exist.
        part_bytes: Read in one transaction; others wait for it meanwhile. More than any line has.
        watched: Is called when requests were taken in that a rollout watches; from any thread.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        part_bytes: int = PART_BYTES,
        watched: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._folder = folder
        self._part_bytes = part_bytes
        self._watched = watched
        self._read_bytes: dict[str, int] = {}
        self._tidy = False
        self._clock = clock
        self._forget_at = clock() + FORGET_EVERY_S

    async def run(self) -> None:
        """Ingest until cancelled; no failure ends it."""
        failures = 0
        while True:
            try:
                await asyncio.to_thread(self.ingest)
                failures = 0
            except Exception:
                failures += 1
                _LOGGER.exception(
                    "Usage could not be taken in from %s; trying again in %.0f s.", self._folder, delay_s(failures)
                )
            await asyncio.sleep(max(INGEST_EVERY_S, delay_s(failures)))

    def ingest(self) -> None:
        """Take in every line that is there; now and then, forget what is years old."""
        for path in sorted(self._folder.glob(f"*{SEGMENT_SUFFIX}")):
            with path.open("rb") as segment:
                written_no_more = _is_free(segment)
                self._take_in(path.name, segment)
            if written_no_more:
                self._tidy = False
                path.unlink()
        if not self._tidy:
            self._forget_deleted()
            self._tidy = True
        if self._clock() >= self._forget_at:
            self._forget_at = self._clock() + FORGET_EVERY_S
            with self._store.transaction() as tx:
                tx.usage.forget_before(hour_of(self._clock() - KEPT_S))

    def _take_in(self, name: str, segment: BinaryIO) -> None:
        read = self._read_bytes.get(name)
        while read is None or b"\n" in os.pread(segment.fileno(), self._part_bytes, read):
            with self._store.transaction() as tx:
                before = tx.usage.read_bytes(name)
                size_bytes, watched = self._take_part(tx, name, segment, before)
            self._read_bytes[name] = read = before + size_bytes
            if watched:
                self._watched()
            if not size_bytes:
                return

    def _take_part(self, tx: Transaction, name: str, segment: BinaryIO, begin: int) -> tuple[int, bool]:
        """Add the lines of a part to the sums.

        Returns:
            How many bytes of it are done with, and whether a rollout counts any of its requests.
        """
        found = read_lines(os.pread(segment.fileno(), self._part_bytes, begin))
        if found.torn:  # or written at this moment, and seen before all of it was there
            found = read_lines(os.pread(segment.fileno(), self._part_bytes, begin))
        if found.torn:
            _LOGGER.warning("%d lines of %s are damaged, and the requests in them are not counted.", found.torn, name)
        if found.size_bytes:
            tx.usage.add(name, begin + found.size_bytes, found.records)
        return found.size_bytes, count_requests(tx, found.records)

    def _forget_deleted(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            _sync_folder(self._folder)
        _delete_nameless(self._folder)
        there = {path.name for path in self._folder.glob(f"*{SEGMENT_SUFFIX}")}
        with self._store.transaction() as tx:
            tx.usage.forget_segments(but=there)
        self._read_bytes = {name: size for name, size in self._read_bytes.items() if name in there}


def _is_free(segment: BinaryIO) -> bool:
    """Whether no gateway writes it. What is free stays so: a segment is locked before it has its name."""
    try:
        fcntl.flock(segment, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _delete_nameless(folder: Path) -> None:
    """Nothing was ever written to them."""
    for path in folder.glob(f"*{SEGMENT_SUFFIX}.new"):
        with contextlib.suppress(FileNotFoundError):  # it has its name now
            if time.time() - path.stat().st_mtime > NAMELESS_S:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
