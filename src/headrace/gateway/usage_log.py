"""The usage log: one line per request in files that only grow, written before the end of an answer goes out.

A line is in the kernel's hands when `UsageLog.append` returns, so a gateway that is killed loses none. Nothing waits
for the disk: a power cut may take the lines of the last seconds with it.

Control reads the segments (`headrace.control.usage`) and deletes those that nobody writes any more.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from headrace.resources.segment import Segment
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
            if segment.size_bytes < self._segment_bytes and segment.age_s < self._segment_s and not segment.torn:
                return segment
            self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._number += 1
        self._segment = Segment(self._folder, f"{self._instance}-{self._number:06d}{SEGMENT_SUFFIX}")
        return self._segment
