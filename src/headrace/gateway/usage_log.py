"""The usage log: one line per request in files that only grow, written before the end of an answer goes out.

A line is in the kernel's hands when `UsageLog.append` returns, so a gateway that is killed loses none. Nothing waits
for the disk: a power cut may take the lines of the last seconds with it. Segments are mapped into memory, for a system
call costs ten times what copying a line does; what a segment has room for and does not use yet is zeros, no line.

Control reads the segments (`headrace.control.usage`) and deletes those that nobody writes any more.
"""

from __future__ import annotations

import logging
import mmap
import os
import secrets
from pathlib import Path

from headrace.resources.segment import Segment
from headrace.resources.usage import SEGMENT_SUFFIX, UsageRecord, to_line

SEGMENT_BYTES = 8 * 2**20
SEGMENT_S = 600.0
"""A segment that is as large, or as old, is followed by another one with the next line."""

ROOM_BYTES = 64 * 1024
"""Of disk that a segment takes at a time: where there is none, that is found here, and never by writing to a mapping,
which would end the process (SIGBUS)."""

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
        self._segment: Segment | None = None
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

    def _open_segment(self) -> Segment:
        segment = self._segment
        if segment is not None:
            if segment.size_bytes < self._segment_bytes and segment.age_s < self._segment_s:
                return segment
            self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._number += 1
        self._segment = _MappedSegment(self._folder, f"{self._instance}-{self._number:06d}{SEGMENT_SUFFIX}")
        return self._segment


class _MappedSegment(Segment):
    """One that is written without a system call."""

    def _prepare(self) -> None:
        os.posix_fallocate(self._descriptor, 0, ROOM_BYTES)
        self._room = mmap.mmap(self._descriptor, ROOM_BYTES)

    def append(self, line: bytes) -> None:
        """Write a line, whole or not at all: its last byte, which makes it one, is written last."""
        begin, end = self.size_bytes, self.size_bytes + len(line)
        if end > len(self._room):
            self._take_room(end)
        self._room[begin : end - 1] = line[:-1]
        self._room[end - 1] = line[-1]
        self.size_bytes = end

    def close(self) -> None:
        """Let go of it, and of the room that was not used."""
        self._room.close()
        os.ftruncate(self._descriptor, self.size_bytes)
        super().close()

    def _take_room(self, size_bytes: int) -> None:
        have, more = len(self._room), -(-size_bytes // ROOM_BYTES) * ROOM_BYTES
        os.posix_fallocate(self._descriptor, have, more - have)
        self._room.resize(more)
