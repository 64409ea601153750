"""Bring a folder here, whole or not at all.

    <root>/<fingerprint>            a staged folder: never written to again
    <root>/.<fingerprint>.lock      held by whoever stages it, in any process
    <root>/.<fingerprint>.partial   what has been copied so far; without a holder of the lock it is dead

A folder gets its name only when every byte of it is on the disk, so a name means a whole copy.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.resources.errors import ArtifactsChanged, Cancelled, DiskFull
from headrace.storage.artifacts import ArtifactFile, Artifacts, fingerprint

Progress = Callable[[int, int], None]
"""Called with the bytes copied so far and the bytes in all."""

SPARE_BYTES = 64 * 1024 * 1024
"""What is left free on the disk after staging: room for logs and the database."""

_LOCK_POLL_S = 0.1
"""How often a waiter looks whether it was cancelled while another one stages the same folder."""


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
    final = destination_root / identity
    destination_root.mkdir(parents=True, exist_ok=True)
    if not final.is_dir():
        with _locked(destination_root, identity, cancelled):
            if not final.is_dir():
                _sweep_dead(destination_root, mine=identity)
                _require_room(artifacts.total_bytes, destination_root)
                _copy_folder(artifacts, identity, destination_root, progress, cancelled)
    progress(artifacts.total_bytes, artifacts.total_bytes)
    return final


def _copy_folder(
    artifacts: Artifacts, identity: str, root: Path, progress: Progress, cancelled: Callable[[], bool]
) -> None:
    partial = _partial(root, identity)
    total_bytes = artifacts.total_bytes
    done_bytes = 0

    def copied(count: int) -> None:
        nonlocal done_bytes
        done_bytes += count
        progress(min(done_bytes, total_bytes), total_bytes)
        _stop_if(cancelled)

    try:
        partial.mkdir()
        for file in artifacts.files:
            _stop_if(cancelled)
            _copy_file(artifacts, file, partial / file.name, copied)
        if fingerprint(artifacts.list_again()) != identity:
            raise _changed(artifacts, "A file was added, removed or written again during the copy.")
        for folder in [partial, *(path for path in partial.rglob("*") if path.is_dir())]:
            _sync_folder(folder)
        partial.rename(root / identity)
        _sync_folder(root)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise _disk_full(total_bytes, root, f"It filled up after {done_bytes:,} bytes.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_file(artifacts: Artifacts, file: ArtifactFile, target: Path, copied: Callable[[int], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        artifacts.copy(file, descriptor, copied)
        os.fsync(descriptor)
        size_bytes = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if size_bytes != file.size_bytes:
        raise _changed(artifacts, f"{file.name} had {file.size_bytes:,} bytes when listed and {size_bytes:,} now.")


@contextmanager
def _locked(root: Path, identity: str, cancelled: Callable[[], bool]) -> Iterator[None]:
    # The lock's file stays: removing it while another process waits on it would give two holders.
    descriptor = os.open(root / f".{identity}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor):
            _stop_if(cancelled)
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _partial(root: Path, identity: str) -> Path:
    return root / f".{identity}.partial"


def _sweep_dead(root: Path, mine: str) -> None:
    """Remove what stagers that died have left, of this folder (whose lock is held here) and of any other."""
    shutil.rmtree(_partial(root, mine), ignore_errors=True)
    for partial in root.glob(".*.partial"):
        identity = partial.name.removeprefix(".").removesuffix(".partial")
        descriptor = os.open(root / f".{identity}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _try_lock(descriptor):
                shutil.rmtree(partial, ignore_errors=True)
        finally:
            os.close(descriptor)


def _require_room(needed_bytes: int, root: Path) -> None:
    if shutil.disk_usage(root).free < needed_bytes + SPARE_BYTES:
        raise _disk_full(needed_bytes, root, "Nothing was copied.")


def _disk_full(needed_bytes: int, root: Path, what_happened: str) -> DiskFull:
    free_bytes = shutil.disk_usage(root).free
    return DiskFull(
        f"The disk at {root} has no room for these weights.",
        evidence=f"They need {needed_bytes:,} bytes and {SPARE_BYTES:,} to spare; {free_bytes:,} are free. "
        + what_happened,
        fix="`headrace clean` shows what can go; or move the data directory to a larger disk.",
    )


def _changed(artifacts: Artifacts, evidence: str) -> ArtifactsChanged:
    return ArtifactsChanged(
        f"The files at {artifacts.address} changed while they were used.",
        evidence=evidence,
        fix="Import the model again once nothing writes there.",
    )


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("Copying the weights was cancelled.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
