"""A file of lines that only grows, and is locked while it is written: how logs of several processes share a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path


class Segment:
    """A file that is locked (``flock``) while it is written.

    It gets its name with the lock on it, so one that has its name and no lock is written by nobody any more.

    Args:
        folder: Where it goes.
        name: What it is called there; no other file may have it.

    Raises:
        OSError: It cannot be made.

    Attributes:
        size_bytes: Of its whole lines.
        torn: Whether a part of a line stands at its end and could not be taken back.
    """

    def __init__(self, folder: Path, name: str) -> None:
        nameless = folder / f"{name}.new"
        self._descriptor = os.open(nameless, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._prepare()
            nameless.rename(folder / name)
        except OSError:
            nameless.unlink(missing_ok=True)
            os.close(self._descriptor)
            raise
        self.size_bytes = 0
        self.torn = False
        self._opened_s = time.monotonic()

    @property
    def age_s(self) -> float:
        """For how long it is there."""
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
        """Let go of it."""
        os.close(self._descriptor)

    def _prepare(self) -> None:
        """What has to be there before it has its name.

        Raises:
            OSError: It cannot be.
        """

    def _take_back(self) -> None:
        """Half a line would spoil the one behind it."""
        try:
            os.ftruncate(self._descriptor, self.size_bytes)
        except OSError:
            self.torn = True
