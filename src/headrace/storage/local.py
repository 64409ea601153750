"""A folder on this machine's own disks."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from headrace.resources.errors import ArtifactsNotFound, ArtifactsRefused
from headrace.storage.artifacts import ArtifactFile, Artifacts, is_hidden

CHUNK_BYTES = 16 * 1024 * 1024
"""How much is copied between two looks at cancellation: a few milliseconds on a disk of today."""

_NO_KERNEL_COPY = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
"""What `os.copy_file_range` answers where the kernel or one of the two file systems cannot do it."""


class LocalArtifacts(Artifacts):
    """A local folder.

    Symbolic links are followed where they stay in the folder and refused where they leave it: what is imported is
    read by the server, whose rights are not the user's.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.folder = _existing_folder(address, folder)
        super().__init__(address, self._walk(self.folder))

    def list_again(self) -> LocalArtifacts:
        """The folder as it is now."""
        return LocalArtifacts(self.address, self.folder)

    def copy(self, file: ArtifactFile, target: int, copied: Callable[[int], None]) -> None:
        """Copy within the kernel where it can be done (which shares blocks on file systems that share them)."""
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

    def _walk(self, folder: Path) -> Iterator[ArtifactFile]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(str(folder), error) from error
        for entry in entries:
            path = Path(entry.path)
            name = path.relative_to(self.folder).as_posix()
            if is_hidden(name):
                continue
            try:
                if entry.is_symlink():
                    self._require_inside(path)
                status = entry.stat()
            except OSError as error:
                raise _unreadable(str(path), error) from error
            if stat.S_ISREG(status.st_mode):
                yield ArtifactFile(name=name, size_bytes=status.st_size, version=str(status.st_mtime_ns))
            elif stat.S_ISDIR(status.st_mode) and not entry.is_symlink():
                yield from self._walk(path)
            else:
                raise ArtifactsRefused(
                    f"{path} is neither a file nor a folder.",
                    evidence=f"Its type is {stat.filemode(status.st_mode)}"
                    + (", behind a symbolic link." if entry.is_symlink() else "."),
                    fix="Remove it from the model's folder.",
                )

    def _require_inside(self, path: Path) -> Path:
        real = path.resolve(strict=True)
        if not real.is_relative_to(self.folder):
            raise ArtifactsRefused(
                f"{path} is a symbolic link that leaves the model's folder.",
                evidence=f"It leads to {real}.",
                fix=f"Copy the folder with its links resolved, `cp -rL {self.folder} NEW_FOLDER`, and give that.",
            )
        return real


def _existing_folder(address: str, folder: Path) -> Path:
    try:
        real = folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, on Python before 3.13
        raise ArtifactsNotFound(
            f"There is no folder at {address}.",
            evidence=str(error),
            fix="The path is looked up on the machine where the server runs; check it there.",
        ) from error
    if not real.is_dir():
        raise ArtifactsNotFound(f"{address} is not a folder.", fix="Give the folder that holds config.json.")
    return real


def _unreadable(what: str, error: OSError) -> ArtifactsNotFound:
    return ArtifactsNotFound(
        f"{what} cannot be read.",
        evidence=error.strerror or str(error),
        fix="Make it readable for the user that the server runs as.",
    )


def _write_all(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(target, view) :]
