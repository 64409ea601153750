"""What keys with limits used, told by one gateway to the one in its place, in a file beside the snapshot.

A gateway writes its file while it runs, soon after each change, so that one that is killed leaves what it knew then.
One that drains goes on writing, because what its last requests use is known when they end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.gateway.allowance import KeyUse
from headrace.gateway.notes import UNREADABLE, Notes


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
        self._notes = Notes(snapshot_path, "limits")
        self._folder = snapshot_path.parent

    @property
    def name(self) -> str:
        """Of this gateway's file."""
        return self._notes.name

    def take(self, name: str) -> dict[str, KeyUse]:
        """What a gateway told last that is gone, for whoever asks first; nothing where it told nothing."""
        path = self._folder / name
        with contextlib.suppress(*UNREADABLE):
            note = msgspec.json.decode(path.read_bytes(), type=LimitNote)
            path.unlink()
            return note.keys
        return {}

    def write(self, note: LimitNote) -> None:
        """Tell."""
        self._notes.write(note)

    def forget(self) -> None:
        """There is nothing to tell."""
        self._notes.forget()

    def others(self) -> Iterator[tuple[dict[str, KeyUse], bool]]:
        """What others told, and whether they are gone: then it is told this once, and to nobody else."""
        for path, stale in self._notes.others():
            with contextlib.suppress(*UNREADABLE):
                note = msgspec.json.decode(path.read_bytes(), type=LimitNote)
                gone = stale or note.over
                if gone:
                    path.unlink()
                yield note.keys, gone
