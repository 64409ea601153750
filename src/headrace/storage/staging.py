"""Bring a folder here, whole or not at all (`whole`): under its fingerprint, from wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headrace.resources.errors import ArtifactsChanged, Cancelled
from headrace.storage.artifacts import Artifacts, fingerprint
from headrace.storage.whole import make_whole

Progress = Callable[[int, int], None]
"""Called with the bytes copied so far and the bytes in all."""


def stage(
    artifacts: Artifacts, destination_root: Path, progress: Progress, cancelled: Callable[[], bool] = lambda: False
) -> Path:
    """Copy a folder to ``destination_root/FINGERPRINT`` and return that path; no work where it is there already.

    Any number of threads and processes may stage the same folder: one copies, the others wait for it.

    Raises:
        ArtifactsChanged: The source changed since it was opened.
        ArtifactsCorrupt: A file did not arrive as its store says that it is.
        ArtifactsNotFound: The source cannot be read any more. What came of a remote one waits for the next attempt.
        Cancelled: ``cancelled()`` became true; nothing is left behind.
        DiskFull: The disk has no room, before the first byte or on the way; nothing is left behind.
    """
    identity = fingerprint(artifacts)

    def copy(partial: Path, _lock: int) -> None:
        _copy_folder(artifacts, identity, partial, progress, cancelled)

    final = make_whole(
        destination_root, identity, artifacts.total_bytes, copy, cancelled, resumable=artifacts.resumable
    )
    progress(artifacts.total_bytes, artifacts.total_bytes)
    return final


def _copy_folder(
    artifacts: Artifacts, identity: str, partial: Path, progress: Progress, cancelled: Callable[[], bool]
) -> None:
    total_bytes = artifacts.total_bytes
    done_bytes = 0

    def copied(count: int) -> None:
        nonlocal done_bytes
        done_bytes += count
        progress(min(done_bytes, total_bytes), total_bytes)
        if cancelled():
            raise Cancelled("Copying the weights was cancelled.")

    artifacts.copy_into(partial, copied)
    if fingerprint(artifacts.list_again()) != identity:
        raise ArtifactsChanged(
            f"The files at {artifacts.address} changed while they were used.",
            evidence="A file was added, removed or written again during the copy.",
            fix="Import the model again once nothing writes there.",
        )
