"""Many ranges of many objects at once into one folder, which a later process can go on with.

Beside the files lies a journal of the ranges that are on the disk: what was in a buffer when the machine went down is
not there, whatever it says. A file that its store vouches for is held against that once it is whole, so that its ranges
are taken as they are; of any other each has a digest in the journal, and is read again before it is believed.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec

from headrace.resources.errors import ArtifactsChanged, ArtifactsCorrupt, Cancelled
from headrace.storage.artifacts import ArtifactFile
from headrace.storage.checksums import Checksum
from headrace.storage.verifying import LANES, Part, Verifier, Vouching
from headrace.storage.whole import JOURNAL

PART_BYTES = 8 * 1024 * 1024
"""How much is asked for at once: large enough that a round trip of 50 ms costs little."""

STREAMS = 8
"""Ranges on their way at once. One connection seldom fills a line; many more only wait for each other."""

FILES_AT_ONCE = LANES
"""Files whose ranges come in turns: each file's digest is made in order, by one thread, and so with the others' and not
after them. More would have the place of each file (the Hub's hold for a while) looked up again and again."""

_AHEAD = 2 * STREAMS
"""Ranges that are given out beforehand: waiting for one of them looks at all, and a large model has 60,000."""

_CANCEL_POLL_S = 0.5

Piece = bytes | memoryview


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """A line of the journal; the digest is empty where the file's store vouches for the whole file."""

    part: Part
    digest: str


class Source(Vouching, Protocol):
    """Where ranges come from; used by several threads."""

    def pieces(self, file: ArtifactFile, start: int, length: int, stopped: threading.Event) -> Iterator[Piece]:
        """These bytes, each piece good until the next one; fewer where the file is shorter than it was said to be.

        Raises:
            Cancelled: ``stopped`` was set while it waited.
        """


def download(
    source: Source,
    files: Sequence[ArtifactFile],
    folder: Path,
    copied: Callable[[int], None],
) -> None:
    """Bring files into a folder, whatever is there of them already included.

    Args:
        source: Where they are.
        files: Which.
        folder: Exists; may hold what an earlier download left.
        copied: Called with the bytes of each range that is on the disk, also those that were; may raise to end it.

    Raises:
        ArtifactsChanged: A file is shorter than it was said to be.
        ArtifactsCorrupt: A file is not what its store says it is, also when it was brought again.
        Exception: Whatever `copied` or the source raises, once nothing is being written any more.
    """
    _make_files(files, folder)
    there = set(_believed(source, folder, files))
    for part in sorted(there):
        copied(part.length)
    for file in _wrong(source, files, there, folder, copied):
        if _wrong(source, [file], set(), folder, lambda _: copied(0)):
            raise _corrupt(file, source.checksum(file))
    (folder / JOURNAL).unlink(missing_ok=True)


def _wrong(
    source: Source, files: Sequence[ArtifactFile], there: Set[Part], folder: Path, copied: Callable[[int], None]
) -> list[ArtifactFile]:
    """Bring what is not there, and hold each file against its checksum while it comes; returns the wrong ones."""
    with Verifier(source, files, folder) as verifier:
        for part in sorted(there):
            verifier.arrived(part)
        missing = _in_turns([part for part in _parts(file) if part not in there] for file in files)
        for came in _fetch(source, files, missing, folder):
            copied(came.length if came else 0)
            if came:
                verifier.arrived(came)
        verdicts = verifier.verdicts()
        waiting = set(verdicts)
        while waiting:
            _, waiting = wait(waiting, _CANCEL_POLL_S, FIRST_COMPLETED)
            copied(0)
        return [file for verdict, file in verdicts.items() if not verdict.result()]


def _in_turns(queues: Iterable[Iterable[Part]]) -> Iterator[Part]:
    """The ranges of several files, of `FILES_AT_ONCE` at a time one after the other."""
    waiting = map(iter, queues)
    active = deque(islice(waiting, FILES_AT_ONCE))
    while active:
        queue = active.popleft()
        part = next(queue, None)
        if part is not None:
            yield part
            active.append(queue)
        else:
            active.extend(islice(waiting, 1))


def _fetch(source: Source, files: Sequence[ArtifactFile], parts: Iterator[Part], folder: Path) -> Iterator[Part | None]:
    """Bring these parts; gives each once it is there and in the journal, and None now and then while none came."""
    by_name = {file.name: file for file in files}
    stopped = threading.Event()

    def fetch(part: Part) -> _Entry:
        file = by_name[part.name]
        vouched = source.checksum(file) is not None
        return _Entry(part, _write(source, file, part, folder / part.name, stopped, digested=not vouched))

    executor = ThreadPoolExecutor(STREAMS, thread_name_prefix="download")
    try:
        waiting: set[Future[_Entry]] = {executor.submit(fetch, part) for part in islice(parts, _AHEAD)}
        with (folder / JOURNAL).open("ab", buffering=0) as journal:  # a kill loses no line
            while waiting:
                done, waiting = wait(waiting, _CANCEL_POLL_S, FIRST_COMPLETED)
                yield None
                for future in done:
                    entry = future.result()
                    waiting.update(executor.submit(fetch, part) for part in islice(parts, 1))
                    journal.write(msgspec.json.encode(entry) + b"\n")
                    yield entry.part
    finally:
        stopped.set()
        executor.shutdown(cancel_futures=True)


def _parts(file: ArtifactFile) -> Iterator[Part]:
    for start in range(0, file.size_bytes, PART_BYTES):
        yield Part(file.name, start, min(PART_BYTES, file.size_bytes - start))


def _make_files(files: Sequence[ArtifactFile], folder: Path) -> None:
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            os.ftruncate(descriptor, file.size_bytes)
        finally:
            os.close(descriptor)


def _believed(source: Source, folder: Path, files: Sequence[ArtifactFile]) -> Iterator[Part]:
    """Ranges of the journal that are on the disk as it says, or will be held against their file's checksum."""
    possible = {part: file for file in files for part in _parts(file)}
    try:
        lines = (folder / JOURNAL).read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            entry = msgspec.json.decode(line, type=_Entry)
        except msgspec.DecodeError:
            continue  # the last line of a process that was killed
        if (file := possible.get(entry.part)) and _may_be_there(source, file, folder / file.name, entry):
            del possible[entry.part]
            yield entry.part


def _may_be_there(source: Source, file: ArtifactFile, path: Path, entry: _Entry) -> bool:
    if not entry.digest:
        return source.checksum(file) is not None
    return _digest(_read(path, entry.part)) == entry.digest


def _digest(content: bytes) -> str:
    """Against torn writes, not against anybody: CRC-32, which takes a quarter of BLAKE2b's time."""
    return f"{zlib.crc32(content):08x}"


def _read(path: Path, part: Part) -> bytes:
    with path.open("rb") as file:
        file.seek(part.start)
        return file.read(part.length)


def _write(
    source: Source, file: ArtifactFile, part: Part, path: Path, stopped: threading.Event, *, digested: bool
) -> str:
    """Bring a part to its place in its file; returns the digest that was made while it passed, if one is wanted."""
    at, digest = part.start, 0
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for piece in source.pieces(file, part.start, part.length, stopped):
            if stopped.is_set():
                raise Cancelled("Bringing the weights here has ended.")
            if digested:
                digest = zlib.crc32(piece, digest)
            view = memoryview(piece)
            while view:
                written = os.pwrite(descriptor, view, at)
                view, at = view[written:], at + written
    finally:
        os.close(descriptor)
    if at != part.start + part.length:
        raise _shorter(file, at)
    return f"{digest:08x}" if digested else ""


def _shorter(file: ArtifactFile, size_bytes: int) -> ArtifactsChanged:
    return ArtifactsChanged(
        f"{file.name} is shorter than its store said.",
        evidence=f"It was listed with {file.size_bytes:,} bytes and ends after {size_bytes:,}.",
        fix="Import the model again once nothing writes there.",
    )


def _corrupt(file: ArtifactFile, checksum: Checksum | None) -> ArtifactsCorrupt:
    said = f"{checksum.algorithm} {checksum.digest}" if checksum else "nothing"
    return ArtifactsCorrupt(
        f"{file.name} did not arrive as its store has it.",
        evidence=f"The store says {said}; what arrived has another, twice.",
        fix="Look for what stands between (a proxy, a cache), or upload the file again.",
    )
