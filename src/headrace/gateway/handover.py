"""What a gateway that drains still carries, told to the one that took its place, which tells control.

Control talks to the newest gateway alone. So each one that drains keeps a note beside the routing snapshot until its
last request has ended; and it reads the snapshots that its successor keeps there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.gateway.snapshot_file import load_snapshot
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot

NOTE_EVERY_S = 0.25
STALE_AFTER_S = 10.0
"""A note that was not renewed for as long is of a gateway that was killed."""


class Handover:
    """One gateway's view of those that drain.

    Args:
        snapshot_path: The routing snapshot; the notes lie beside it.
    """

    def __init__(self, snapshot_path: Path) -> None:
        self._snapshot_path = snapshot_path
        self._own = snapshot_path.with_name(f"draining-{secrets.token_hex(8)}.json")
        self._read_at_ns = 0

    def note(self, status: GatewayStatus) -> None:
        """Tell what this gateway still carries. A full disk costs the note and nothing else."""
        fresh = self._own.with_suffix(".fresh")
        with contextlib.suppress(OSError):
            self._own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(status))
            fresh.replace(self._own)

    def over(self) -> None:
        """It carries nothing any more."""
        with contextlib.suppress(OSError):
            self._own.unlink(missing_ok=True)

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
        for path in self._own.parent.glob("draining-*.json"):
            if path == self._own:
                continue
            with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                if time.time() - path.stat().st_mtime > STALE_AFTER_S:
                    path.unlink()
                    continue
                yield msgspec.json.decode(path.read_bytes(), type=GatewayStatus)
