"""How the request log is kept on disk, server-wide."""

from __future__ import annotations

import importlib.util
from enum import StrEnum
from pathlib import Path

import msgspec

MAX_BYTES = 2**30
SEGMENT_BYTES = 64 * 2**20
_SEGMENTS = 8


class LogFormat(StrEnum):
    """What its files are when nobody writes them any more."""

    JSONL = "jsonl"
    PARQUET = "parquet"

    @property
    def available(self) -> bool:
        """Whether what it takes is installed: Parquet's is the extra ``parquet``."""
        return self is LogFormat.JSONL or importlib.util.find_spec("pyarrow") is not None


def delta_available() -> bool:
    """Whether the log can become Delta tables as well: the extra ``delta``."""
    return all(importlib.util.find_spec(package) is not None for package in ("deltalake", "pyarrow"))


class LogFiles(msgspec.Struct, frozen=True, kw_only=True):
    """How the files are kept.

    Attributes:
        format: Of the files that are closed.
        max_bytes: What all files may take before the oldest go.
        folder: Where they lie, with the key of hashes above it; None: beside what else a gateway keeps.
        writers: How many write there at a time, one for each gateway.
    """

    format: LogFormat = LogFormat.JSONL
    max_bytes: int = MAX_BYTES
    folder: Path | None = None
    writers: int = 1

    @property
    def segment_bytes(self) -> int:
        """From what size on a file is followed by another.

        Those that are being written are an eighth of all together at most, so that few rows go at a time.
        """
        return min(SEGMENT_BYTES, max(1, self.max_bytes // (_SEGMENTS * self.writers)))
