"""Files held against their store's checksums while their ranges come: each read in order, as far as it has no gap."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self

import msgspec

from headrace.storage.artifacts import ArtifactFile
from headrace.storage.checksums import Checksum, Digest, digest
from headrace.storage.whole import sync

LANES = 4
"""Files that are read at once: one core makes 0.5 to 5 GB/s of a digest."""

_BLOCK_BYTES = 1024 * 1024


class Part(msgspec.Struct, frozen=True, order=True):
    """A range of a file.

    Attributes:
        name: The file's.
        start: Its first byte.
        length: Bytes.
    """

    name: str
    start: int
    length: int


class Vouching(Protocol):
    """Who knows what files should be."""

    def checksum(self, file: ArtifactFile) -> Checksum | None:
        """What the store says of a file's content."""


class Verifier:
    """Reads from the disk what came, so that what is compared is what will be there; one thread calls it.

    A file's digest is made in one lane, and a lane does one thing after another: so no digest needs a lock.

    Args:
        source: Knows the checksums.
        files: Which may come.
        folder: Where they are.
    """

    def __init__(self, source: Vouching, files: Sequence[ArtifactFile], folder: Path) -> None:
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix="verify") for _ in range(LANES)]
        self._files = {
            file.name: _Growing(source, file, folder / file.name, self._lanes[number % LANES])
            for number, file in enumerate(files)
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self._lanes:
            lane.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes:
            lane.shutdown()

    def arrived(self, part: Part) -> None:
        """This range is on the disk."""
        self._files[part.name].arrived(part)

    def verdicts(self) -> dict[Future[bool], ArtifactFile]:
        """Of each file whether it is right, once all its ranges have arrived."""
        return {growing.verdict(): growing.file for growing in self._files.values()}


class _Growing:
    """A file that is not whole yet, and the digest of what it begins with."""

    def __init__(self, source: Vouching, file: ArtifactFile, path: Path, lane: ThreadPoolExecutor) -> None:
        self.file = file
        self._source = source
        self._path = path
        self._lane = lane
        self._waiting: dict[int, int] = {}
        self._reached = 0
        self._begun = False
        self._failure: Exception | None = None
        self._checksum: Checksum | None = None
        self._digest: Digest | None = None

    def arrived(self, part: Part) -> None:
        self._waiting[part.start] = part.length
        while length := self._waiting.pop(self._reached, 0):
            self._lane.submit(self._read, self._reached, length)
            self._reached += length

    def verdict(self) -> Future[bool]:
        return self._lane.submit(self._is_right)

    def _read(self, start: int, length: int) -> None:
        try:
            self._begin()
            self._add(start, length)
        except Exception as error:  # the verdict tells it
            self._failure = self._failure or error

    def _add(self, start: int, length: int) -> None:
        if self._digest is None:
            return
        with self._path.open("rb", buffering=0) as file:
            file.seek(start)
            while length and (block := file.read(min(length, _BLOCK_BYTES))):
                self._digest.update(block)
                length -= len(block)

    def _is_right(self) -> bool:
        self._begin()
        if self._failure:
            raise self._failure
        right = self._checksum is None or (
            self._digest is not None and self._digest.hexdigest() == self._checksum.digest
        )
        if right:
            sync(self._path)  # while others come: whoever makes the folder whole finds little left to wait for
        return right

    def _begin(self) -> None:
        if not self._begun:
            self._checksum = self._source.checksum(self.file)
            self._digest = digest(self._checksum.algorithm, self.file.size_bytes) if self._checksum else None
            self._begun = True
