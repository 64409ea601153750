"""The usage log: one line per request in files that only grow, written before the end of an answer goes out.

A line is in the kernel's hands when `UsageLog.append` returns, so a gateway that is killed loses none. Nothing waits
for the disk: a power cut may take the lines of the last seconds with it.

Control reads the segments (`headrace.control.usage`) and deletes those that nobody writes any more.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from pathlib import Path

from headrace.resources.usage import SEGMENT_SUFFIX, UsageRecord, to_line

SEGMENT_BYTES = 8 * 2**20
SEGMENT_S = 600.0
"""A segment that is as large, or as old, is followed by another one with the next line."""

_LOGGER = logging.getLogger(__name__)


class UsageLog:
    """The segments of one gateway. It never fails a request: what cannot be written is counted.

    Args:
        folder: Where they go; made, mode 0700, with the first line.
        segment_bytes: From what size on the next line begins another segment.
        segment_s: From what age on it does.

    Attributes:
        failures: Lines that could not be written.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, segment_s: float = SEGMENT_S) -> None:
        self.failures = 0
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segment_s = segment_s
        self._instance = secrets.token_hex(8)  # several gateways share the folder, and none continues another's files
        self._number = 0
        self._segment: _Segment | None = None
        self._failing = False

    def append(self, record: UsageRecord) -> None:
        """Write a line, at once."""
        try:
            self._open_segment().append(to_line(record))
        except OSError as error:
            self.failures += 1
            if not self._failing:
                _LOGGER.error(  # noqa: TRY400 - the traceback says nothing more
                    "Usage cannot be written to %s, so requests are answered and not counted: %s", self._folder, error
                )
            self._failing = True
            return
        if self._failing:
            self._failing = False
            _LOGGER.warning("Usage is written again; %d requests were not counted.", self.failures)

    def close(self) -> None:
        """Leave the segment to control. The next line would begin another one."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _open_segment(self) -> _Segment:
        segment = self._segment
        if segment is not None:
            if segment.size_bytes < self._segment_bytes and segment.age_s < self._segment_s and not segment.torn:
                return segment
            self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._number += 1
        self._segment = _Segment(self._folder, f"{self._instance}-{self._number:06d}{SEGMENT_SUFFIX}")
        return self._segment


class _Segment:
    """A file that is locked while it is written. It gets its name with the lock on it: one without is nobody's."""

    def __init__(self, folder: Path, name: str) -> None:
        nameless = folder / f"{name}.new"
        self._descriptor = os.open(nameless, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            nameless.rename(folder / name)
        except OSError:
            self.close()
            raise
        self.size_bytes = 0
        self.torn = False
        self._opened_s = time.monotonic()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._opened_s

    def append(self, line: bytes) -> None:
        """Write a line, whole or not at all.

        Raises:
            OSError: The disk is full, or worse.
        """
        written = os.write(self._descriptor, line)
        if written < len(line):
            self._take_back()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size_bytes += written

    def close(self) -> None:
        os.close(self._descriptor)

    def _take_back(self) -> None:
        """Half a line would spoil the one behind it."""
        try:
            os.ftruncate(self._descriptor, self.size_bytes)
        except OSError:
            self.torn = True
