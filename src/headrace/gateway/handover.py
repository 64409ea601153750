"""What a gateway that drains still carries, told to the one that took its place, which tells control.

Control talks to the newest gateway alone. So each one that drains keeps a note beside the routing snapshot until its
last request has ended; and it reads the snapshots that its successor keeps there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.gateway.notes import UNREADABLE, Notes
from headrace.gateway.snapshot_file import load_snapshot
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot

NOTE_EVERY_S = 0.25


class Handover:
    """One gateway's view of those that drain.

    Args:
        snapshot_path: The routing snapshot; the notes lie beside it.
    """

    def __init__(self, snapshot_path: Path) -> None:
        self._snapshot_path = snapshot_path
        self._notes = Notes(snapshot_path, "draining")
        self._read_at_ns = 0

    def note(self, status: GatewayStatus) -> None:
        """Tell what this gateway still carries."""
        self._notes.write(status)

    def over(self) -> None:
        """It carries nothing any more."""
        self._notes.forget()

    def newer_snapshot(self) -> RoutingSnapshot | None:
        """What the successor keeps on disk, if it was written since this was asked last."""
        try:
            written_at_ns = os.stat(self._snapshot_path).st_mtime_ns
        except OSError:
            return None
        if written_at_ns == self._read_at_ns:
            return None
        self._read_at_ns = written_at_ns
        return load_snapshot(self._snapshot_path)

    def others(self) -> Iterator[GatewayStatus]:
        """What those that drain said last."""
        for path, stale in self._notes.others():
            with contextlib.suppress(*UNREADABLE):
                if stale:
                    path.unlink()
                else:
                    yield msgspec.json.decode(path.read_bytes(), type=GatewayStatus)
