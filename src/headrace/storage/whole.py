"""Folders that are whole or not there: made beside their name, and given it when every byte is on the disk.

<root>/<name>            a folder: never written to again
<root>/.<name>.lock      held by whoever makes it, in any process
<root>/.<name>.partial   what there is of it so far; without a holder of the lock it is dead, or may be gone on with
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headrace.resources.errors import ArtifactsNotFound, BadField, Cancelled, DestinationNotEmpty, DiskFull

SPARE_BYTES = 64 * 1024 * 1024
"""What is left free on the disk beyond a new folder: room for logs and the database."""

JOURNAL = ".parts"
"""The file that a maker keeps in its unfinished folder so that a later one can go on, and removes in the end."""

KEPT_S = 24 * 3600
"""How long an unfinished folder with a journal waits for somebody who goes on with it."""

_LOCK_POLL_S = 0.1
"""How often a waiter looks whether it was cancelled while another one makes the same folder."""


def make_whole(
    root: Path,
    name: str,
    needed_bytes: int,
    make: Callable[[Path, int], None],
    cancelled: Callable[[], bool] = lambda: False,
    *,
    resumable: bool = False,
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
        resumable: ``make`` keeps a `JOURNAL` and goes on with the folder of an earlier one that died, or that lost
            its source (`ArtifactsNotFound`).

    Raises:
        Cancelled: ``cancelled()`` became true, or ``make`` says so; nothing is left behind.
        DiskFull: The disk has no room, before the first byte or on the way; nothing is left behind.
        Exception: Whatever ``make`` raises; nothing is left behind but what can be gone on with.
    """
    final = root / name
    root.mkdir(parents=True, exist_ok=True)
    if not final.is_dir():
        with _locked(root, name, cancelled) as lock:
            if not final.is_dir():
                _sweep_dead(root, mine=name, resumable=resumable)
                _require_room(root, max(0, needed_bytes - taken_bytes(_partial(root, name))))
                _make(root, name, needed_bytes, lambda partial: make(partial, lock), resumable=resumable)
    return final


def make_new(destination: Path, needed_bytes: int, make: Callable[[Path], None]) -> None:
    """Make a folder that a person named: filled beside its name, and given it when every byte is on the disk.

    Args:
        destination: Nothing, or an empty folder.
        needed_bytes: As for `make_whole`.
        make: Fills an empty folder.

    Raises:
        BadField: As `require_new`.
        DestinationNotEmpty: There is something; also if it came meanwhile.
        DiskFull: As for `make_whole`.
    """
    require_new(destination, needed_bytes)
    for dead in destination.parent.glob(f".{glob.escape(destination.name)}.*.partial"):
        with suppress(OSError), held(dead) as mine:  # what is no folder, or another user's, is not one of ours
            if mine:
                shutil.rmtree(dead, ignore_errors=True)
    with _can_be_made(destination):
        partial = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
        partial.chmod(0o755)
    try:
        with held(partial):
            _fill(partial, destination, needed_bytes, make)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        _require_empty(destination)
        raise


def require_new(destination: Path, needed_bytes: int) -> None:
    """Hold that a folder of this size can be made there; its parents are.

    Raises:
        BadField: No folder can be made there.
        DestinationNotEmpty: As `make_new`; and `DiskFull`.
    """
    with _can_be_made(destination):
        if destination.name == "..":
            raise OSError(errno.EINVAL, "it ends in .., which names a folder that is there")
        _require_empty(destination)
        destination.parent.mkdir(parents=True, exist_ok=True)
        _require_room(destination.parent, needed_bytes)


@contextmanager
def _can_be_made(destination: Path) -> Iterator[None]:
    """Turn what the system says against a folder into an error of whoever named it: a file above, no right, a name."""
    try:
        yield
    except OSError as error:
        raise BadField(
            f"No folder can be made at {str(destination)[:300]}.",
            evidence=f"{error.strerror or error}.",
            fix="Name a place where there is none yet and you may write.",
        ) from error


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a lock on a folder itself, which ends with the process; whether it could be had."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _require_empty(destination: Path) -> None:
    if not destination.exists() and not destination.is_symlink():
        return
    there = sorted(path.name for path in destination.iterdir()) if destination.is_dir() else [destination.name]
    if there or destination.is_symlink():
        raise DestinationNotEmpty(
            f"There is something at {destination} already.",
            evidence=f"{', '.join(there[:3])}{' …' if len(there) > 3 else ''}" or "It is a symbolic link.",
            fix="Name another folder, or remove that one.",
        )


def _require_room(root: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(root).free < needed_bytes + SPARE_BYTES:
        raise _disk_full(needed_bytes, root, "Nothing was written.")


def _make(root: Path, name: str, needed_bytes: int, make: Callable[[Path], None], *, resumable: bool) -> None:
    partial = _partial(root, name)
    partial.mkdir(exist_ok=resumable)
    _fill(partial, root / name, needed_bytes, make, resumable=resumable)


def _fill(
    partial: Path, final: Path, needed_bytes: int, make: Callable[[Path], None], *, resumable: bool = False
) -> None:
    """Fill a folder and give it its name; whatever goes wrong, it is removed, or kept to be gone on with."""
    keep = False
    try:
        make(partial)
        for path in [partial, *partial.rglob("*")]:
            sync(path)
        partial.rename(final)
        sync(final.parent)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise _disk_full(needed_bytes, final.parent, "It filled up on the way.") from error
    except ArtifactsNotFound:
        keep = resumable
        raise
    finally:
        if not keep:
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


def taken_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk: those of a download have holes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _waits(partial: Path) -> bool:
    """Whether somebody may still go on with it."""
    try:
        return time.time() - (partial / JOURNAL).stat().st_mtime < KEPT_S
    except OSError:
        return False


def _sweep_dead(root: Path, mine: str, *, resumable: bool) -> None:
    """Remove what makers that died have left, of this folder (whose lock is held here) and of any other."""
    if not (resumable and (_partial(root, mine) / JOURNAL).is_file()):
        shutil.rmtree(_partial(root, mine), ignore_errors=True)
    for partial in root.glob(".*.partial"):
        if _waits(partial):
            continue
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


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
