"""What lies at an address: files with their sizes, readable in ranges. One seam, two kinds of source."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import ClassVar

import msgspec

from headrace.resources.errors import ArtifactsNotFound, ArtifactsRefused


class ArtifactFile(msgspec.Struct, frozen=True, order=True):
    """One file of a model folder.

    Attributes:
        name: Its path below the folder, with ``/`` between the parts.
        size_bytes: Its length.
        version: What changes when its content does: an entity tag where the store has one, else the modification
            time in nanoseconds.
    """

    name: str
    size_bytes: int
    version: str


class Artifacts(abc.ABC):
    """The files at one address, as they were when it was opened.

    It satisfies `headrace.weights.reader.FolderReader`, so a folder can be checked where it lies.

    Attributes:
        resumable: `copy_into` goes on with what an earlier one left in the folder.
        address: What the user gave, for messages.
        files: The files, sorted by name. Names with a part that starts with a dot (``.git``, ``.cache``) are left out.
    """

    resumable: ClassVar[bool] = False

    def __init__(self, address: str, files: Iterable[ArtifactFile]) -> None:
        self.address = address
        self.files = tuple(sorted(files))
        self._by_name = {file.name: file for file in self.files}
        self._sizes = MappingProxyType({file.name: file.size_bytes for file in self.files})
        if not self.files:
            raise ArtifactsNotFound(
                f"There are no files at {address}.", fix="Give the address of the folder that holds config.json."
            )

    @property
    def unvouched(self) -> tuple[str, ...]:
        """Files that were copied and that their store has no checksum for; a folder of this machine needs none."""
        return ()

    @property
    def total_bytes(self) -> int:
        """The length of all files together."""
        return sum(file.size_bytes for file in self.files)

    def sizes(self) -> Mapping[str, int]:
        """The length in bytes of every file, by name."""
        return self._sizes

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Up to ``length`` bytes of a file from ``start``; fewer only where the file ends.

        Raises:
            ArtifactsNotFound: The folder has no such file, or it cannot be read now.
        """
        if start < 0 or length < 0:
            raise ValueError(f"A range cannot begin at {start} and be {length} long.")
        return self._read(self._file(name), start, length)

    def read_small(self, name: str, limit_bytes: int) -> bytes:
        """A whole file that is known to be small.

        Raises:
            ArtifactsNotFound: The folder has no such file, or it cannot be read now.
            ArtifactsRefused: It is longer than ``limit_bytes``.
        """
        file = self._file(name)
        if file.size_bytes > limit_bytes:
            raise ArtifactsRefused(
                f"{name} is too long to be read whole.",
                evidence=f"It has {file.size_bytes:,} bytes; at most {limit_bytes:,} are read.",
            )
        return self._read(file, 0, file.size_bytes)

    @abc.abstractmethod
    def list_again(self) -> Artifacts:
        """The same address as it is now, past every cache."""

    @abc.abstractmethod
    def copy_into(self, folder: Path, copied: Callable[[int], None]) -> None:
        """Write every file into a folder, calling ``copied`` with the bytes that came to be there; it may raise.

        Raises:
            ArtifactsChanged: A file is not as long as it was when it was listed.
            ArtifactsCorrupt: A file is not what its store says it is.
            ArtifactsNotFound: A file cannot be read any more.
        """

    @abc.abstractmethod
    def _read(self, file: ArtifactFile, start: int, length: int) -> bytes:
        """The bytes of a range of a file that is listed."""

    def _file(self, name: str) -> ArtifactFile:
        if name not in self._by_name:
            raise ArtifactsNotFound(f"There is no {name!r} at {self.address}.")
        return self._by_name[name]


def fingerprint(artifacts: Artifacts) -> str:
    """A cheap identity of a folder: SHA-256 over its files' names, sizes and versions, as 64 hexadecimal digits.

    It changes whenever a file was written again, also with the same content, and reads no content.
    """
    listing = [(file.name, file.size_bytes, file.version) for file in artifacts.files]
    return hashlib.sha256(msgspec.json.encode(listing)).hexdigest()


def is_hidden(name: str) -> bool:
    """Whether a part of this path starts with a dot: version control and caches, never model files."""
    return any(part.startswith(".") and part not in {".", ".."} for part in PurePosixPath(name).parts)


def require_inside(name: str, address: str) -> str:
    """A file's name, if it stays below its folder wherever it is copied to.

    Raises:
        ArtifactsRefused: It is absolute, climbs with ``..``, or holds a NUL.
    """
    parts = name.split("/")
    if name.startswith("/") or "\0" in name or any(part in {"", ".", ".."} for part in parts):
        raise ArtifactsRefused(
            f"A file at {address} has a name that leads outside the folder.",
            evidence=repr(name),
            fix="Rename or remove it.",
        )
    return name
