"""A folder on this machine's own disks."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from headrace.resources.errors import ArtifactsChanged, ArtifactsNotFound, ArtifactsRefused
from headrace.storage.artifacts import ArtifactFile, Artifacts, is_hidden

CHUNK_BYTES = 16 * 1024 * 1024
"""How much is copied between two looks at cancellation: a few milliseconds on a disk of today."""

_MAX_DEPTH = 32
"""Folders within folders. Models have one or two; far more are a trap, and long paths fail later."""

_NO_KERNEL_COPY = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
"""What `os.copy_file_range` answers where the kernel or one of the two file systems cannot do it."""


class LocalArtifacts(Artifacts):
    """A local folder.

    Symbolic links are followed where they stay in the folder and refused where they leave it: what is imported is
    read by the server, whose rights are not the user's.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.folder = existing_folder(address, folder)
        super().__init__(address, self._walk())

    def list_again(self) -> LocalArtifacts:
        """The folder as it is now."""
        return LocalArtifacts(self.address, self.folder)

    def copy_into(self, folder: Path, copied: Callable[[int], None]) -> None:
        """Each file in turn: a disk is not read faster in several places at once."""
        for file in self.files:
            copied(0)
            target = folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                self.copy(file, descriptor, copied)
                size_bytes = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if size_bytes != file.size_bytes:
                raise ArtifactsChanged(
                    f"The files at {self.address} changed while they were used.",
                    evidence=f"{file.name} had {file.size_bytes:,} bytes when listed and {size_bytes:,} now.",
                    fix="Import the model again once nothing writes there.",
                )

    def copy(self, file: ArtifactFile, target: int, copied: Callable[[int], None]) -> None:
        """Write a file to an open descriptor, within the kernel where it can: some file systems then share blocks."""
        with self._open(file) as source:
            descriptor = source.fileno()
            try:
                while count := os.copy_file_range(descriptor, target, CHUNK_BYTES):
                    copied(count)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY or os.lseek(descriptor, 0, os.SEEK_CUR):
                    raise
                while chunk := os.read(descriptor, CHUNK_BYTES):
                    _write_all(target, chunk)
                    copied(len(chunk))

    def _read(self, file: ArtifactFile, start: int, length: int) -> bytes:
        with self._open(file) as source:
            source.seek(start)
            return source.read(length)

    def _open(self, file: ArtifactFile) -> BufferedReader:
        path = self.folder / file.name
        try:
            return self._require_inside(path).open("rb")
        except OSError as error:
            raise _unreadable(str(path), error) from error

    def _walk(self) -> Iterator[ArtifactFile]:
        folders = [(self.folder, 0)]
        while folders:
            folder, depth = folders.pop()
            if depth > _MAX_DEPTH:
                raise ArtifactsRefused(
                    f"{self.folder} has more than {_MAX_DEPTH} folders within each other.",
                    evidence=f"{str(folder.relative_to(self.folder))[:200]}…",
                    fix="Give the folder that holds config.json, with nothing else in it.",
                )
            for entry in self._entries(folder):
                path = Path(entry.path)
                status = self._status(entry, path)
                if stat.S_ISREG(status.st_mode):
                    name = path.relative_to(self.folder).as_posix()
                    yield ArtifactFile(name=name, size_bytes=status.st_size, version=str(status.st_mtime_ns))
                elif stat.S_ISDIR(status.st_mode) and not entry.is_symlink():
                    folders.append((path, depth + 1))
                else:
                    raise ArtifactsRefused(
                        f"{path} is neither a file nor a folder.",
                        evidence=f"Its type is {stat.filemode(status.st_mode)}"
                        + (", behind a symbolic link." if entry.is_symlink() else "."),
                        fix="Remove it from the model's folder.",
                    )

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What a folder holds, hidden things left out."""
        try:
            entries = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
        except OSError as error:
            raise _unreadable(str(folder), error) from error
        for entry in entries:
            _require_utf_8(Path(entry.path))
        return entries

    def _status(self, entry: os.DirEntry[str], path: Path) -> os.stat_result:
        try:
            if entry.is_symlink():
                self._require_inside(path)
            return entry.stat()
        except OSError as error:
            raise _unreadable(str(path), error) from error

    def _require_inside(self, path: Path) -> Path:
        try:
            real = Path(os.path.realpath(path, strict=True))
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ArtifactsRefused(
                f"{path} is a symbolic link that leads to itself.",
                evidence=f"It leads to {_shown(path.readlink())}.",
                fix="Remove it from the model's folder.",
            ) from error
        if not real.is_relative_to(self.folder):
            raise ArtifactsRefused(
                f"{path} is a symbolic link that leaves the model's folder.",
                evidence=f"It leads to {_shown(real)}.",
                fix=f"Copy the folder with its links resolved, `cp -rL {self.folder} NEW_FOLDER`, and give that.",
            )
        return real


def existing_folder(address: str, folder: Path) -> Path:
    """The folder, without links in its path.

    Raises:
        ArtifactsNotFound: There is none.
        ArtifactsRefused: Its path is not UTF-8.
    """
    try:
        real = folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, on Python before 3.13
        raise ArtifactsNotFound(
            f"There is no folder at {address}.",
            evidence=str(error),
            fix="Check the path. That of a deployment is looked up on the machine where the server runs.",
        ) from error
    _require_utf_8(real)
    if not real.is_dir():
        raise ArtifactsNotFound(f"{address} is not a folder.", fix="Give the folder that holds config.json.")
    return real


def _require_utf_8(path: Path) -> None:
    """Names go into JSON, which has no place for other bytes."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        raise ArtifactsRefused(
            "The model's folder has a file whose name is not UTF-8.",
            evidence=_shown(path),
            fix="Rename or remove it.",
        ) from error


def _shown(path: Path) -> str:
    """A path for a message, with escapes for what is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _unreadable(what: str, error: OSError) -> ArtifactsNotFound:
    return ArtifactsNotFound(
        f"{what} cannot be read.",
        evidence=error.strerror or str(error),
        fix="Make it readable for whoever reads it: of a deployment, the user that the server runs as.",
    )


def _write_all(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(target, view) :]
