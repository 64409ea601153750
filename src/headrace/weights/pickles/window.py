"""A file somewhere as a file object that can only be read in small pieces: what `zipfile` asks for is an attacker's."""

from __future__ import annotations

import io

from headrace.weights.pickles.symbols import PickleRefused
from headrace.weights.reader import FolderReader

LONGEST_READ_BYTES = 4 * 1024 * 1024
"""A zip's list of its records is read at once: about 40,000 of them, or 30 MB of objects."""


class Window(io.RawIOBase):
    """A seekable view of one file of a folder."""

    def __init__(self, reader: FolderReader, name: str) -> None:
        super().__init__()
        self._reader = reader
        self._name = name
        self._size_bytes = reader.sizes()[name]
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere, as `io.IOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise OSError("a place before the file's beginning")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            PickleRefused: They are more than any part of such a file has.
        """
        left = max(0, self._size_bytes - self._position)
        count = left if size is None or size < 0 else min(size, left)
        if count > LONGEST_READ_BYTES:
            limit = f"at most {LONGEST_READ_BYTES:,} are read"
            raise PickleRefused(f"the list of its records takes {count:,} bytes; {limit}")
        content = self._reader.read_range(self._name, self._position, count) if count else b""
        self._position += len(content)
        return content
