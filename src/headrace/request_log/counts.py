"""What a writer has done so far, in memory that its gateway has, too: neither ever waits for the other to tell."""

from __future__ import annotations

import mmap
import os
import struct
from typing import Self

_FORMAT = struct.Struct("=QQQ")


class Counts:
    """Three numbers, written by one process and read by another. They outlive the writer.

    Args:
        descriptor: Of the memory (``memfd_create``).
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _FORMAT.size)

    @classmethod
    def new(cls) -> Self:
        """All of them 0."""
        descriptor = os.memfd_create("headrace-request-log")
        os.ftruncate(descriptor, _FORMAT.size)
        return cls(descriptor)

    @property
    def written(self) -> int:
        """Rows that are in files."""
        return self._read()[0]

    @property
    def failed(self) -> int:
        """Requests that could not be written."""
        return self._read()[1]

    @property
    def trouble(self) -> str:
        """What the system said when one could not be written last; empty while the newest one could."""
        number = self._read()[2]
        return os.strerror(number) if number else ""

    def add_written(self) -> None:
        """One more row is in a file."""
        written, failed, _ = self._read()
        self._write(written + 1, failed, 0)

    def add_failed(self, error_number: int) -> None:
        """One more request could not be written."""
        written, failed, _ = self._read()
        self._write(written, failed + 1, error_number)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.descriptor)

    def _read(self) -> tuple[int, int, int]:
        written, failed, trouble = _FORMAT.unpack_from(self._memory)
        return written, failed, trouble

    def _write(self, written: int, failed: int, trouble: int) -> None:
        _FORMAT.pack_into(self._memory, 0, written, failed, trouble)
