"""Files that clients upload: received beside their place, and given it when every byte is on the disk.

<root>/<folder>/<name>           a file: whole, always
<root>/.incoming/<token>         what comes just now; without a process that receives it, it is dead

Nothing here holds a file in memory; a caller's pieces go to the disk as they come.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from headrace.resources.errors import BadField, DiskFull, NameTaken, StillInUse, UploadNotFound
from headrace.storage.whole import SPARE_BYTES

_INCOMING = ".incoming"
_LOOK_EVERY_BYTES = 64 * 1024 * 1024
"""How much is written between two looks at what the disk has left."""

_NO_PLACE = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY})


class UploadedEntry(msgspec.Struct, frozen=True, order=True):
    """What a folder holds.

    Attributes:
        size_bytes: 0 of a folder.
        modified_at: Unix seconds.
    """

    name: str
    is_folder: bool
    size_bytes: int
    modified_at: float


class Incoming:
    """A file that is being received. Leaving the context without `keep` leaves nothing behind.

    Args:
        root: Of all uploads.
        expected_bytes: How long it will be, where that is known.
    """

    def __init__(self, root: Path, expected_bytes: int | None) -> None:
        self._folder = root / _INCOMING
        self._expected_bytes = expected_bytes
        self._path = self._folder / secrets.token_hex(16)
        self._file: IO[bytes] | None = None
        self._written_bytes = 0
        self._looked_at_bytes = 0

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            DiskFull: It has no room on the disk.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._require_room(self._expected_bytes or 0)
        self._file = self._path.open("xb", buffering=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Put a piece behind what is there.

        Raises:
            DiskFull: The disk has no room for it.
        """
        assert self._file is not None
        view = memoryview(piece)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _full(self._folder, self._written_bytes) from error
        self._written_bytes += len(piece)
        if self._written_bytes - self._looked_at_bytes >= _LOOK_EVERY_BYTES:
            self._looked_at_bytes = self._written_bytes
            self._require_room(0)

    def keep(self, path: Path, *, overwrite: bool) -> None:
        """Give it its place, once every byte is on the disk.

        Raises:
            NameTaken: There is a file already, which is not to be replaced.
            BadField: There is a folder, or a file where a folder of the path should be.
        """
        assert self._file is not None
        os.fsync(self._file.fileno())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder")
            if overwrite:
                self._path.replace(path)
            else:
                os.link(self._path, path)
        except FileExistsError as error:
            if path.is_file():
                raise NameTaken(
                    f"There is a file {path.name!r} already.", fix="Upload it with overwrite=true to replace it."
                ) from error
            raise _no_place(path) from error
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise
            raise _no_place(path) from error
        _sync(path.parent)

    def _require_room(self, needed_bytes: int) -> None:
        if shutil.disk_usage(self._folder).free < needed_bytes + SPARE_BYTES:
            raise _full(self._folder, needed_bytes or self._written_bytes)


def folder_entries(folder: Path) -> list[UploadedEntry]:
    """What a folder holds, by name.

    Raises:
        UploadNotFound: There is no such folder.
    """
    try:
        return sorted(_entries(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UploadNotFound(f"There is no folder {folder.name!r}.") from error


def _entries(folder: Path) -> Iterator[UploadedEntry]:
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        is_folder = entry.is_dir(follow_symlinks=False)
        yield UploadedEntry(entry.name, is_folder, 0 if is_folder else status.st_size, status.st_mtime)


def require_file(path: Path) -> Path:
    """A file that is there.

    Raises:
        UploadNotFound: It is not.
    """
    if not path.is_file():
        raise UploadNotFound(f"There is no file {path.name!r}.")
    return path


def open_file(path: Path) -> IO[bytes]:
    """A file that is there, to be read: what replaces it in its place changes nothing of it.

    Raises:
        UploadNotFound: There is none.
    """
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UploadNotFound(f"There is no file {path.name!r}.") from error


def delete_file(path: Path) -> None:
    """Remove a file.

    Raises:
        UploadNotFound: There is none.
    """
    try:
        require_file(path).unlink()
    except FileNotFoundError as error:  # somebody was faster
        raise UploadNotFound(f"There is no file {path.name!r}.") from error


def make_folder(path: Path) -> None:
    """Make a folder, and those it is in; one that is there is left alone.

    Raises:
        BadField: There is a file in its place, or in that of a folder above.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise _no_place(path) from error


def delete_folder(path: Path) -> None:
    """Remove an empty folder.

    Raises:
        UploadNotFound: There is none.
        StillInUse: Something is in it.
    """
    try:
        path.rmdir()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UploadNotFound(f"There is no folder {path.name!r}.") from error
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise StillInUse(f"The folder {path.name!r} is not empty.", fix="Delete what is in it first.") from error


def merge(source: Path, files: Mapping[str, str], target: Path) -> None:
    """Make one folder of files of another: hard links, so that nothing is copied and neither needs the other.

    Args:
        source: Where the files are.
        files: Their names in ``target``, each with its name in ``source``.
        target: Replaced if it is there: nobody uses it yet.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        for name, original in files.items():
            place = partial / name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / original, place)
            except OSError:  # a file system without hard links
                shutil.copyfile(source / original, place)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_tree(path: Path) -> None:
    """Remove a folder with all in it; one that is not there is no error."""
    gone = path.with_name(f".{path.name}.{secrets.token_hex(4)}.removing")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what a process that died was receiving or removing. Nobody else may be at it."""
    shutil.rmtree(root / _INCOMING, ignore_errors=True)
    for dead in root.glob("*/*/*/.*.removing"):
        shutil.rmtree(dead, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _full(folder: Path, needed_bytes: int) -> DiskFull:
    free = shutil.disk_usage(folder).free
    return DiskFull(
        "The disk has no room for the upload.",
        evidence=f"It has {needed_bytes:,} bytes so far or in all; {free:,} are free, and {SPARE_BYTES:,} stay so.",
        fix="Delete versions that nobody needs, or give the data directory a larger disk.",
    )


def _no_place(path: Path) -> BadField:
    return BadField(
        f"The path of {path.name!r} is taken.",
        evidence="There is a folder where the file should be, or a file where a folder of its path should be.",
        fix="Choose another path, or delete what is there.",
    )
