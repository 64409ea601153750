"""Bring a folder here, whole or not at all (`whole`): under its fingerprint, from wherever it lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from headrace.resources.errors import ArtifactsChanged, Cancelled
from headrace.storage.artifacts import ArtifactFile, Artifacts, fingerprint
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
        ArtifactsNotFound: The source cannot be read any more.
        Cancelled: ``cancelled()`` became true; nothing is left behind.
        DiskFull: The disk has no room, before the first byte or on the way; nothing is left behind.
    """
    identity = fingerprint(artifacts)

    def copy(partial: Path, _lock: int) -> None:
        _copy_folder(artifacts, identity, partial, progress, cancelled)

    final = make_whole(destination_root, identity, artifacts.total_bytes, copy, cancelled)
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
        _stop_if(cancelled)

    for file in artifacts.files:
        _stop_if(cancelled)
        _copy_file(artifacts, file, partial / file.name, copied)
    if fingerprint(artifacts.list_again()) != identity:
        raise _changed(artifacts, "A file was added, removed or written again during the copy.")


def _copy_file(artifacts: Artifacts, file: ArtifactFile, target: Path, copied: Callable[[int], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        artifacts.copy(file, descriptor, copied)
        size_bytes = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if size_bytes != file.size_bytes:
        raise _changed(artifacts, f"{file.name} had {file.size_bytes:,} bytes when listed and {size_bytes:,} now.")


def _changed(artifacts: Artifacts, evidence: str) -> ArtifactsChanged:
    return ArtifactsChanged(
        f"The files at {artifacts.address} changed while they were used.",
        evidence=evidence,
        fix="Import the model again once nothing writes there.",
    )


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("Copying the weights was cancelled.")
