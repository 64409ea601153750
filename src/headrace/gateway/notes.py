"""Files by which gateways tell each other what they know: each writes one, beside the routing snapshot."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

STALE_AFTER_S = 10.0
"""A note that was not renewed for as long is of a gateway that was killed."""


class Notes:
    """One gateway's note of a kind, and those of others.

    Args:
        snapshot_path: The routing snapshot; the notes lie beside it.
        kind: What they are about: the beginning of their names.
    """

    def __init__(self, snapshot_path: Path, kind: str) -> None:
        self._kind = kind
        self._own = snapshot_path.with_name(f"{kind}-{secrets.token_hex(8)}.json")

    @property
    def name(self) -> str:
        """Of the file."""
        return self._own.name

    def write(self, note: msgspec.Struct) -> None:
        """Tell. A full disk costs the note and nothing else."""
        fresh = self._own.with_suffix(".fresh")
        with contextlib.suppress(OSError):
            self._own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(note))
            fresh.replace(self._own)

    def forget(self) -> None:
        """There is nothing to tell any more."""
        with contextlib.suppress(OSError):
            self._own.unlink(missing_ok=True)

    def others(self) -> Iterator[tuple[Path, bool]]:
        """The notes of others, and whether they are stale. Whoever reads one has to expect that it is gone."""
        for path in self._own.parent.glob(f"{self._kind}-*.json"):
            if path != self._own:
                with contextlib.suppress(OSError):
                    yield path, time.time() - path.stat().st_mtime > STALE_AFTER_S


UNREADABLE: tuple[type[Exception], ...] = (OSError, msgspec.DecodeError, UnicodeDecodeError)
"""What reading a note of another gateway may raise: it went in this moment, or is of another version."""
