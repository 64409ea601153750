"""What a node remembers of each replica, in the replica's folder: so that the next node goes on where this one was."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from headrace.resources.assignments import ReplicaOrder, ReplicaReport

FILE = "node.json"


class Entry(msgspec.Struct, frozen=True):
    """The order that a replica runs by, and what was last reported of it."""

    order: ReplicaOrder
    report: ReplicaReport


def read(directory: Path) -> Entry | None:
    """What is remembered of a replica; None without a record that can be read."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Entry)
    except (OSError, msgspec.MsgspecError):
        return None


def write(directory: Path, entry: Entry) -> None:
    """Remember, for this user's eyes only: an order holds the engine's nonce."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = directory / f".{FILE}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(entry))
    temporary.rename(directory / FILE)
