"""Folders that are whole or not there: made beside their name, and given it when every byte is on the disk.

<root>/<name>            a folder: never written to again
<root>/.<name>.lock      held by whoever makes it, in any process
<root>/.<name>.partial   what there is of it so far; without a holder of the lock it is dead
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

from headrace.resources.errors import Cancelled, DiskFull

SPARE_BYTES = 64 * 1024 * 1024
"""What is left free on the disk beyond a new folder: room for logs and the database."""

_LOCK_POLL_S = 0.1
"""How often a waiter looks whether it was cancelled while another one makes the same folder."""


def make_whole(
    root: Path,
    name: str,
    needed_bytes: int,
    make: Callable[[Path, int], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Make the folder ``root/name``, unless it is there, and return its path.

    Any number of threads and processes may ask for the same folder: one makes it, the others wait for that one.

    Args:
        root: Made if it is missing.
        name: The folder's.
        needed_bytes: What it will take; refused before it begins if the disk has less.
        make: Fills an empty folder, the first argument. The second is a descriptor that holds the lock: a process that
            inherits it keeps others away for as long as it lives.
        cancelled: Asked while another one makes the folder.

    Raises:
        Cancelled: ``cancelled()`` became true, or ``make`` says so; nothing is left behind.
        DiskFull: The disk has no room, before the first byte or on the way; nothing is left behind.
    """
    final = root / name
    root.mkdir(parents=True, exist_ok=True)
    if not final.is_dir():
        with _locked(root, name, cancelled) as lock:
            if not final.is_dir():
                _sweep_dead(root, mine=name)
                if shutil.disk_usage(root).free < needed_bytes + SPARE_BYTES:
                    raise _disk_full(needed_bytes, root, "Nothing was written.")
                _make(root, name, needed_bytes, lambda partial: make(partial, lock))
    return final


def _make(root: Path, name: str, needed_bytes: int, make: Callable[[Path], None]) -> None:
    partial = _partial(root, name)
    try:
        partial.mkdir()
        make(partial)
        for path in [partial, *partial.rglob("*")]:
            _sync(path)
        partial.rename(root / name)
        _sync(root)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise _disk_full(needed_bytes, root, "It filled up on the way.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(root: Path, name: str, cancelled: Callable[[], bool]) -> Iterator[int]:
    # The lock's file stays: removing it while another process waits on it would give two holders.
    descriptor = os.open(root / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor):
            if cancelled():
                raise Cancelled("Bringing the weights here was cancelled.")
            time.sleep(_LOCK_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _partial(root: Path, name: str) -> Path:
    return root / f".{name}.partial"


def _sweep_dead(root: Path, mine: str) -> None:
    """Remove what makers that died have left, of this folder (whose lock is held here) and of any other."""
    shutil.rmtree(_partial(root, mine), ignore_errors=True)
    for partial in root.glob(".*.partial"):
        name = partial.name.removeprefix(".").removesuffix(".partial")
        descriptor = os.open(root / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _try_lock(descriptor):
                shutil.rmtree(partial, ignore_errors=True)
        finally:
            os.close(descriptor)


def _disk_full(needed_bytes: int, root: Path, what_happened: str) -> DiskFull:
    free_bytes = shutil.disk_usage(root).free
    return DiskFull(
        f"The disk at {root} has no room for these weights.",
        evidence=f"They need {needed_bytes:,} bytes and {SPARE_BYTES:,} to spare; {free_bytes:,} are free. "
        + what_happened,
        fix="`headrace clean` shows what can go; or move the data directory to a larger disk.",
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
