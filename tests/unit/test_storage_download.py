"""Downloads by ranges: their order, and what of an earlier one is gone on with."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.resources.errors import ArtifactsCorrupt
from headrace.storage import download as module
from headrace.storage.artifacts import ArtifactFile
from headrace.storage.checksums import Checksum
from headrace.storage.download import FILES_AT_ONCE, download
from headrace.storage.verifying import Part
from headrace.storage.whole import JOURNAL

CONTENT = {"a": random.Random(1).randbytes(1050), "sub/b": random.Random(2).randbytes(300), "c": b""}
FILES = [ArtifactFile(name, len(content), "1") for name, content in sorted(CONTENT.items())]


class Scripted:
    """Has the files, and remembers what it was asked for.

    Args:
        vouches: It has checksums.
        spoils: Whether what it gives is wrong.
    """

    def __init__(self, *, vouches: bool, spoils: bool = False) -> None:
        self.vouches = vouches
        self.spoils = spoils
        self.asked: list[tuple[str, int]] = []

    def checksum(self, file: ArtifactFile) -> Checksum | None:
        """The MD5."""
        return Checksum("md5", hashlib.md5(CONTENT[file.name]).hexdigest()) if self.vouches else None

    def pieces(self, file: ArtifactFile, start: int, length: int, _stopped: threading.Event) -> Iterator[bytes]:
        """In two."""
        self.asked.append((file.name, start))
        content = CONTENT[file.name][start : start + length]
        yield content[:30]
        yield bytes(len(content[30:])) if self.spoils else content[30:]


class Interrupted(Exception):
    """Raised by whoever was to be told of progress."""


def interrupt(source: Scripted, folder: Path) -> int:
    """A download that ends with its third range; returns how many are in the journal."""
    calls = iter(range(3))

    def copied(count: int) -> None:
        if count and next(calls, None) == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        download(source, FILES, folder, copied)
    return len((folder / JOURNAL).read_bytes().splitlines())


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of a hundred bytes."""
    monkeypatch.setattr(module, "PART_BYTES", 100)


@given(counts=st.lists(st.integers(0, 9), max_size=12))
def test_files_come_in_turns(counts: list[int]) -> None:
    """Each range once, each file's in order, and never of more files than `FILES_AT_ONCE` between two of one file."""
    queues = [[Part(str(number), start, 1) for start in range(count)] for number, count in enumerate(counts)]
    order = list(module._in_turns(queues))
    assert sorted(order) == sorted(part for queue in queues for part in queue)
    for number, queue in enumerate(queues):
        places = [place for place, part in enumerate(order) if part.name == str(number)]
        assert [order[place] for place in places] == queue
        gaps = [later - earlier for earlier, later in itertools.pairwise(places)]
        assert max(gaps, default=0) <= FILES_AT_ONCE


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("vouches", [True, False])
def test_all_of_it_comes(tmp_path: Path, vouches: bool) -> None:
    """Every byte of every file, each told once, and no journal is left."""
    told: list[int] = []
    download(Scripted(vouches=vouches), FILES, tmp_path, told.append)
    assert content_of(tmp_path) == CONTENT
    assert sum(told) == sum(map(len, CONTENT.values()))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("vouches", [True, False])
def test_what_is_there_is_not_asked_for_again(tmp_path: Path, vouches: bool) -> None:
    """The next download goes on with the ranges of the journal; only of a file without a checksum they have digests."""
    kept = interrupt(Scripted(vouches=vouches), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_bytes().splitlines()]
    assert all(bool(digest) != vouches for _, digest in lines)
    again = Scripted(vouches=vouches)
    download(again, FILES, tmp_path, lambda _: None)
    assert content_of(tmp_path) == CONTENT
    assert kept >= 3
    assert len(again.asked) == 11 + 3 - kept


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("vouches", [True, False])
def test_what_is_not_there_as_the_journal_says_is_brought_again(tmp_path: Path, vouches: bool) -> None:
    """After a machine went down: by its digest, or as the whole file is not what its store vouches for."""
    interrupt(Scripted(vouches=vouches), tmp_path)
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(bytes(len(content)))
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'[{"name": "../../../etc/passwd", "start": 0, "length": 1}, ""]\nnonsense\n[')
    download(Scripted(vouches=vouches), FILES, tmp_path, lambda _: None)
    assert content_of(tmp_path) == CONTENT


@pytest.mark.usefixtures("small_parts")
def test_a_journal_without_digests_is_nothing_where_no_checksum_is(tmp_path: Path) -> None:
    """A store that vouched yesterday and does not today gives every range again."""
    interrupt(Scripted(vouches=True), tmp_path)
    again = Scripted(vouches=False)
    download(again, FILES, tmp_path, lambda _: None)
    assert len(again.asked) == 11 + 3
    assert content_of(tmp_path) == CONTENT


@pytest.mark.usefixtures("small_parts")
def test_what_is_wrong_twice_is_an_error(tmp_path: Path) -> None:
    """It names the file, and both digests' algorithm."""
    with pytest.raises(ArtifactsCorrupt) as caught:
        download(Scripted(vouches=True, spoils=True), FILES, tmp_path, lambda _: None)
    assert "md5" in caught.value.evidence
