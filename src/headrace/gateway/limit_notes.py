"""What keys with limits used, told by one gateway to the one in its place, in a file beside the snapshot.

A gateway writes its file while it runs, soon after each change, so that one that is killed leaves what it knew then.
One that drains goes on writing, because what its last requests use is known when they end.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.gateway.budget import KeyUse
from headrace.gateway.handover import STALE_AFTER_S


class LimitNote(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway counts.

    Attributes:
        keys: By key id.
        over: Whether it has ended: nothing more will come.
    """

    keys: dict[str, KeyUse]
    over: bool = False


class LimitNotes:
    """One gateway's file, and those of others.

    Args:
        snapshot_path: The routing snapshot; the files lie beside it.
    """

    def __init__(self, snapshot_path: Path) -> None:
        self._own = snapshot_path.with_name(f"limits-{secrets.token_hex(8)}.json")

    def write(self, note: LimitNote) -> None:
        """Tell. A full disk costs the note and nothing else."""
        fresh = self._own.with_suffix(".fresh")
        with contextlib.suppress(OSError):
            self._own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(note))
            fresh.replace(self._own)

    def forget(self) -> None:
        """There is nothing to tell."""
        with contextlib.suppress(OSError):
            self._own.unlink(missing_ok=True)

    def others(self) -> Iterator[tuple[dict[str, KeyUse], bool]]:
        """What others told, and whether they are gone: then it is told this once, and to nobody else."""
        for path in self._own.parent.glob("limits-*.json"):
            if path == self._own:
                continue
            with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                stale = time.time() - path.stat().st_mtime > STALE_AFTER_S
                note = msgspec.json.decode(path.read_bytes(), type=LimitNote)
                gone = stale or note.over
                if gone:
                    path.unlink()
                yield note.keys, gone
