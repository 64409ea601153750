"""The files of the log: one is written, the others are kept until they are too many.

A file of JSON lines is locked while somebody writes it. Who begins to write takes care of those that nobody does any
more, because their writer was killed: a part of a line goes, and they become what a closed file is.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from headrace.resources.files import private_dir
from headrace.resources.segment import Segment

_LOGGER = logging.getLogger(__name__)

LINES_SUFFIX = ".jsonl"
SEGMENT_S = 3600.0
_UNNAMED_SUFFIX = ".new"
_UNNAMED_S = 3600.0
"""A file without its name that is so old is of a process that was killed."""

Closed: TypeAlias = Callable[[Path], None]
"""What becomes of a file of lines that nobody writes any more; locked meanwhile."""


class Segments:
    """The files of one writer, in a folder that it may share.

    Args:
        folder: Where they go; made, mode 0700, with the first one.
        max_bytes: What all files in it may take before the oldest go.
        segment_bytes: From what size on the next line begins another file.
        writers: How many write there at a time.
        segment_s: From what age on a file is closed.
        closed: What is done with a file that is closed; None: it stays as it is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        segment_bytes: int,
        writers: int = 1,
        segment_s: float = SEGMENT_S,
        closed: Closed | None = None,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._written_bytes = segment_bytes * writers
        self._segment_s = segment_s
        self._closed = closed
        self._instance = secrets.token_hex(4)
        self._number = 0
        self._name = ""
        self._segment: Segment | None = None

    @property
    def due_in_s(self) -> float | None:
        """When the file is to be closed for its age; None while there is none."""
        return None if self._segment is None else max(0.0, self._segment_s - self._segment.age_s)

    def append(self, line: bytes) -> None:
        """Write a line.

        Raises:
            OSError: It cannot be written; nothing of it was.
        """
        segment = self._segment
        if segment is not None and (segment.size_bytes >= self._segment_bytes or segment.torn):
            self.close()
            segment = None
        if segment is None:
            segment = self._begin()
        segment.append(line)

    def close(self) -> None:
        """Be done with the file; the next line begins another."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()
            self._finish(self._folder / self._name)

    def close_if_due(self) -> None:
        """Be done with a file that is old enough."""
        if self.due_in_s == 0.0:
            self.close()

    def recover(self) -> None:
        """Take care of what writers left that were killed."""
        for path in sorted(self._folder.glob(f"*{LINES_SUFFIX}")):
            self._finish(path)
        for path in self._folder.glob(f"*{_UNNAMED_SUFFIX}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _UNNAMED_S:
                    path.unlink()

    def _begin(self) -> Segment:
        private_dir(self._folder)
        self._make_room(self._written_bytes)
        self._number += 1
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._name = f"{at}-{self._instance}-{self._number:06d}{LINES_SUFFIX}"
        self._segment = Segment(self._folder, self._name)
        return self._segment

    def _finish(self, path: Path) -> None:
        """Make of a file what a closed one is. Where that cannot be done now, the next writer tries again."""
        try:
            with _unwritten(path) as descriptor:
                if descriptor is not None:
                    _drop_half_line(descriptor)
                    if self._closed is not None:
                        self._closed(path)
        except Exception:  # a full disk, or lines that are not ours: the log goes on in another file
            _LOGGER.exception("%s stays as it is", path)

    def _make_room(self, size_bytes: int) -> None:
        """Delete the oldest files, until there is so much room within the bound."""
        found = [path for path in sorted(self._folder.iterdir()) if path.suffix != _UNNAMED_SUFFIX]
        sizes = {}
        for path in found:
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
        total = sum(sizes.values()) + size_bytes
        for path, size in sizes.items():
            if total <= self._max_bytes:
                return
            with _unwritten(path) as descriptor:
                if descriptor is not None:
                    path.unlink()
                    total -= size


@contextlib.contextmanager
def _unwritten(path: Path) -> Iterator[int | None]:
    """A file that nobody writes, locked and open; None if somebody does, or if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.fstat(descriptor).st_nlink > 0  # else another writer took care of it just now
        except BlockingIOError:
            there = False
        yield descriptor if there else None
    finally:
        os.close(descriptor)


def _drop_half_line(descriptor: int) -> None:
    """What a writer that was killed, or a full disk, left of its last line goes."""
    size = end = os.fstat(descriptor).st_size
    while end:
        begin = max(0, end - 65_536)
        at = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if at >= 0:
            end = begin + at + 1
            break
        end = begin
    if end < size:
        os.ftruncate(descriptor, end)
