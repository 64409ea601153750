"""The end of a replica's log, from this machine's file."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.resources.layout import Layout

_TAIL_BYTES = 1 << 20
"""The most that is read from the end of a log."""


def engine_log(layout: Layout, replica_id: str) -> Path:
    """Where a replica's engine writes, as its shim has it."""
    return layout.replica_dir(replica_id) / "engine.log"


def tail(path: Path, count: int) -> list[str] | None:
    """The last lines of a file, or None when there is no such file."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, size_bytes - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return None
    return lines[-count:] if count else []
