"""The newest routing snapshot on disk, so that a gateway can start while control is down."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from headrace.resources.errors import DiskFull
from headrace.resources.snapshot import RoutingSnapshot

_LOGGER = logging.getLogger(__name__)


def load_snapshot(path: Path) -> RoutingSnapshot | None:
    """What was written last; None if there is nothing, or nothing that can be read (the log then tells why)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RoutingSnapshot)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        _LOGGER.warning("The routing snapshot %s cannot be read, so control has to push one: %s", path, error)
        return None


def load_newest(paths: Iterable[Path]) -> RoutingSnapshot | None:
    """The newest of several."""
    found = [snapshot for path in paths if (snapshot := load_snapshot(path)) is not None]
    return max(found, key=lambda snapshot: snapshot.generation, default=None)


def save_snapshot(path: Path, snapshot: RoutingSnapshot) -> None:
    """Write it so that at any moment the file holds either the old one or the new one; mode 0600, for it holds nonces.

    Raises:
        DiskFull: It cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(snapshot))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise DiskFull(
            "The gateway cannot keep its routing snapshot on disk.",
            evidence=f"{path}: {error.strerror or error}.",
            fix="Free some space (`headrace clean`), and see that the data directory can be written to.",
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
