"""Files that are uploaded: whole or not there, never outside their folder, gone when they are deleted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from headrace.resources.errors import BadField, DiskFull, NameTaken, StillInUse, UploadNotFound
from headrace.storage import uploads
from headrace.storage.uploads import (
    Incoming,
    delete_file,
    delete_folder,
    folder_entries,
    make_folder,
    merge,
    remove_tree,
    sweep,
)


def receive(root: Path, path: Path, *pieces: bytes, overwrite: bool = True) -> None:
    """Upload a file."""
    before = path.read_bytes() if path.is_file() else None
    with Incoming(root, sum(map(len, pieces))) as incoming:
        for piece in pieces:
            incoming.write(piece)
        assert (path.read_bytes() if path.is_file() else None) == before
        incoming.keep(path, overwrite=overwrite)


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    """Nothing is seen of it before; what is sent again takes its place at once."""
    path = tmp_path / "p" / "models" / "1" / "1" / "a" / "b.bin"
    receive(tmp_path, path, b"one", b"two")
    assert path.read_bytes() == b"onetwo"
    receive(tmp_path, path, b"three")
    assert path.read_bytes() == b"three"
    assert not list((tmp_path / ".incoming").iterdir())


def test_what_is_not_kept_leaves_nothing(tmp_path: Path) -> None:
    """A client that leaves takes its file along."""

    class Left(Exception):
        pass

    def leave() -> None:
        with Incoming(tmp_path, None) as incoming:
            incoming.write(b"half")
            raise Left

    with pytest.raises(Left):
        leave()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_overwrite_the_first_one_stays(tmp_path: Path) -> None:
    """It is refused, and nothing is lost."""
    path = tmp_path / "p" / "f"
    receive(tmp_path, path, b"first", overwrite=False)
    with pytest.raises(NameTaken):
        receive(tmp_path, path, b"second", overwrite=False)
    assert path.read_bytes() == b"first"


def test_files_and_folders_do_not_take_each_others_place(tmp_path: Path) -> None:
    """Neither a folder where a file goes, nor a file where a folder of the path would be."""
    receive(tmp_path, tmp_path / "p" / "file", b"x")
    make_folder(tmp_path / "p" / "folder")
    for wrong in ("folder", "file/below"):
        for overwrite in (True, False):
            with pytest.raises(BadField):
                receive(tmp_path, tmp_path / "p" / wrong, b"y", overwrite=overwrite)
    with pytest.raises(BadField):
        make_folder(tmp_path / "p" / "file")
    assert (tmp_path / "p" / "file").read_bytes() == b"x"


def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is announced must have room, and what comes is looked at on the way; nothing is left behind."""
    with pytest.raises(DiskFull), Incoming(tmp_path, 1 << 60):
        pass
    free = [1 << 40, 1 << 40, 1, 1]
    monkeypatch.setattr(uploads, "_LOOK_EVERY_BYTES", 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free.pop(0) if free else 1))
    with pytest.raises(DiskFull):
        receive(tmp_path, tmp_path / "p" / "f", b"12345678", b"12345678")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_folders_are_listed_and_deleted(tmp_path: Path) -> None:
    """By name; what is not there is told, and a folder goes only when it is empty."""
    folder = tmp_path / "p"
    receive(tmp_path, folder / "b", b"xy")
    receive(tmp_path, folder / "a" / "c", b"z")
    assert [(each.name, each.is_folder, each.size_bytes) for each in folder_entries(folder)] == [
        ("a", True, 0),
        ("b", False, 2),
    ]
    with pytest.raises(StillInUse):
        delete_folder(folder / "a")
    delete_file(folder / "a" / "c")
    delete_folder(folder / "a")
    for gone in (
        lambda: delete_folder(folder / "a"),
        lambda: delete_file(folder / "a"),
        lambda: folder_entries(folder / "b"),
    ):
        with pytest.raises(UploadNotFound):
            gone()


def test_one_folder_is_made_of_files_without_copying_them(tmp_path: Path) -> None:
    """By hard links: it lives on when the other goes, and is made again over what was there."""
    source, target = tmp_path / "s", tmp_path / "served" / "t"
    (source / "model").mkdir(parents=True)
    (source / "model" / "w").write_bytes(b"weights")
    target.parent.mkdir()
    for _ in range(2):
        merge(source, {"w": "model/w", "deep/w": "model/w"}, target)
    assert (target / "w").stat().st_ino == (source / "model" / "w").stat().st_ino
    remove_tree(source)
    remove_tree(source)
    assert (target / "deep" / "w").read_bytes() == b"weights"
    assert [each.name for each in target.parent.iterdir()] == ["t"]


def test_a_start_sweeps_what_a_dead_process_was_at(tmp_path: Path) -> None:
    """What was being received or removed; nothing that is whole."""
    kept = tmp_path / "p" / "models" / "1" / "1" / "file"
    receive(tmp_path, kept, b"x")
    (tmp_path / ".incoming" / "dead").write_bytes(b"half")
    dead = tmp_path / "p" / "models" / "1" / ".2.abcd.removing"
    dead.mkdir()
    (dead / "file").write_bytes(b"x")
    sweep(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
    sweep(tmp_path / "nowhere")
    assert os.listdir(kept.parent.parent) == ["1"]
