"""Artifacts at addresses, and bringing them here whole or not at all."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from headrace.resources.errors import (
    ArtifactsChanged,
    ArtifactsNotFound,
    ArtifactsRefused,
    BadField,
    Cancelled,
    DiskFull,
    SchemeNotSupported,
)
from headrace.storage import ArtifactFile, Artifacts, fingerprint, open_artifacts, require_openable, stage
from headrace.storage.download import PART_BYTES
from headrace.storage.local import LocalArtifacts
from headrace.storage.remote import RemoteArtifacts
from headrace.weights import FolderReader, check


def ignore(_done: int, _total: int) -> None:
    """Progress that nobody looks at."""


def left_behind(root: Path) -> list[str]:
    """What lies in the cache beside whole folders and locks."""
    return [path.name for path in root.iterdir() if not path.name.endswith(".lock") and path.name.startswith(".")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder with a subfolder."""
    source = tmp_path / "model"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_bytes(b'{"model_type": "x"}')
    (source / "weights.bin").write_bytes(os.urandom(300_000))
    (source / "sub" / "more.txt").write_bytes(b"")
    return source


def names(artifacts: Artifacts) -> list[str]:
    """The names of all files."""
    return [file.name for file in artifacts.files]


def test_a_path_and_a_file_address_are_the_same_place(folder: Path) -> None:
    """Both spellings list the same files, sizes and identity; an artifacts object is what a check reads from."""
    by_path, by_uri = open_artifacts(str(folder)), open_artifacts(folder.as_uri())
    assert names(by_path) == names(by_uri) == ["config.json", "sub/more.txt", "weights.bin"]
    assert fingerprint(by_path) == fingerprint(by_uri)
    assert by_path.sizes()["weights.bin"] == 300_000
    reader: FolderReader = by_path
    assert check(reader)


def test_an_address_may_have_spaces_and_signs(tmp_path: Path) -> None:
    """Percent-encoding is undone, and ?, # and % are letters like others."""
    source = tmp_path / "a b #1 50%?"
    source.mkdir()
    (source / "f").write_bytes(b"x")
    assert names(open_artifacts(str(source))) == names(open_artifacts(source.as_uri())) == ["f"]


def test_ranges_are_read(folder: Path) -> None:
    """A range ends where the file ends; an unknown file is an error; a small file has a limit."""
    artifacts = open_artifacts(str(folder))
    content = (folder / "weights.bin").read_bytes()
    assert artifacts.read_range("weights.bin", 10, 20) == content[10:30]
    assert artifacts.read_range("weights.bin", 299_990, 100) == content[-10:]
    assert artifacts.read_small("config.json", 100) == b'{"model_type": "x"}'
    with pytest.raises(ArtifactsRefused):
        artifacts.read_small("weights.bin", 100)
    with pytest.raises(ArtifactsNotFound):
        artifacts.read_range("../model/config.json", 0, 1)


@pytest.mark.parametrize("address", ["model", "./model", "~/model", "", "file://model/x", "s3://", "gs:///", "gs:///x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """A relative path would be looked up at the server's working directory, so it is not looked up at all."""
    with pytest.raises(BadField) as caught:
        open_artifacts(address)
    assert caught.value.fix


@pytest.mark.parametrize("address", ["s3://key:tops3cret@bucket/x", "gs://:tops3cret@b", "s3://k:a@tops3cret@b/x"])
def test_a_password_in_an_address_is_refused_and_not_shown(address: str) -> None:
    """Addresses are shown with a model to everybody who may see it."""
    for opens in (open_artifacts, require_openable):
        with pytest.raises(BadField, match="no password") as caught:
            opens(address)
        assert "tops3cret" not in f"{caught.value.message} {caught.value.evidence} {caught.value.fix}"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1/x", "zip::file:///x", "memory://x", "ftp://x/y", "simplecache::s3://b/x"]
)
def test_only_listed_schemes_reach_a_driver(address: str) -> None:
    """No address makes the server fetch from elsewhere."""
    with pytest.raises((SchemeNotSupported, BadField)):
        open_artifacts(address)


def test_a_missing_driver_names_the_command_that_brings_it() -> None:
    """Where no driver is installed, the fix is the command for this very environment, and to start again."""
    program = (
        "import sys; sys.modules['gcsfs'] = None\n"  # as if it were not installed
        "from headrace.storage import open_artifacts\n"
        "try: open_artifacts('gs://bucket/model')\n"
        "except Exception as error: print(error.code, error.fix)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    command, _, rest = answer.stdout.strip().removeprefix("SCHEME_NOT_SUPPORTED `").partition("`")
    python, *arguments = shlex.split(command)
    assert (python, arguments) == (sys.executable, ["-m", "pip", "install", "gcsfs"])
    assert "start it again" in rest


@pytest.mark.parametrize(
    "value", ["nonsense-s3cret", "AccountName=river;AccountKey=s3cret", "BlobEndpoint=http://[s3cret"]
)
def test_credentials_that_are_malformed_are_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a driver makes of them, the error names the address and where they come from, and no value."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", value)
    with pytest.raises(ArtifactsNotFound) as caught:
        open_artifacts("az://container/model")
    said = caught.value.failure
    assert "az://container/model" in said.message
    assert "headrace credentials list" in said.fix
    assert "environment" in said.fix
    assert "s3cret" not in f"{said.message} {said.evidence} {said.fix}"


def test_nothing_there_is_said_plainly(tmp_path: Path) -> None:
    """A missing folder, an empty one and a file are each no model folder."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("missing", "empty", "file"):
        with pytest.raises(ArtifactsNotFound):
            open_artifacts(str(tmp_path / name))


def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    """A link to a file, a folder or a device elsewhere is named with where it leads."""
    (tmp_path / "secret").write_bytes(b"s")
    for target in (tmp_path / "secret", tmp_path, Path("/dev/zero"), Path("../secret")):
        (folder / "link").symlink_to(target)
        with pytest.raises(ArtifactsRefused) as caught:
            open_artifacts(str(folder))
        assert "link" in caught.value.message
        (folder / "link").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ArtifactsRefused):
        open_artifacts(str(folder))


def test_a_link_that_turns_outwards_after_listing_is_refused(folder: Path, tmp_path: Path) -> None:
    """The check is made again when a file is opened."""
    artifacts = open_artifacts(str(folder))
    (tmp_path / "secret").write_bytes(b"s" * 19)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactsRefused):
        artifacts.read_range("config.json", 0, 19)


def test_links_within_the_folder_are_followed(folder: Path, tmp_path: Path) -> None:
    """Such a link stages as the file that it leads to."""
    (folder / "again.json").symlink_to("config.json")
    staged = stage(open_artifacts(str(folder)), tmp_path / "cache", ignore)
    assert (staged / "again.json").read_bytes() == b'{"model_type": "x"}'
    assert not (staged / "again.json").is_symlink()


def test_hidden_files_are_left_out(folder: Path) -> None:
    """Version control keeps second copies of weights; they are not the model."""
    (folder / ".git").mkdir()
    (folder / ".git" / "object").write_bytes(b"x")
    assert names(open_artifacts(str(folder))) == ["config.json", "sub/more.txt", "weights.bin"]


def test_sizes_are_counted_once_and_cannot_be_changed(tmp_path: Path) -> None:
    """Checks ask for them at every file: a folder of thousands is not counted thousands of times."""
    (tmp_path / "config.json").write_text("{}")
    opened = open_artifacts(str(tmp_path))
    assert opened.sizes() is opened.sizes()
    with pytest.raises(TypeError):
        opened.sizes()["other"] = 1  # type: ignore[index]  # what is to fail


def test_a_fingerprint_changes_with_the_files(folder: Path) -> None:
    """Another size, another time or another name is another identity; looking again is not."""
    first = fingerprint(open_artifacts(str(folder)))
    assert fingerprint(open_artifacts(str(folder))) == first
    os.utime(folder / "weights.bin", ns=(1, 1))
    second = fingerprint(open_artifacts(str(folder)))
    (folder / "weights.bin").rename(folder / "other.bin")
    third = fingerprint(open_artifacts(str(folder)))
    assert len({first, second, third}) == 3


def test_staging_copies_everything_once(folder: Path, tmp_path: Path) -> None:
    """The staged folder is equal; progress ends at the total; a second staging copies nothing."""
    artifacts, cache, seen = open_artifacts(str(folder)), tmp_path / "cache", []
    staged = stage(artifacts, cache, lambda done, total: seen.append((done, total)))
    assert staged == cache / fingerprint(artifacts)
    for name in names(artifacts):
        assert (staged / name).read_bytes() == (folder / name).read_bytes()
    assert seen[-1] == (artifacts.total_bytes, artifacts.total_bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    inode = (staged / "weights.bin").stat().st_ino
    assert stage(artifacts, cache, ignore) == staged
    assert (staged / "weights.bin").stat().st_ino == inode
    assert left_behind(cache) == []


class Scripted(LocalArtifacts):
    """A local folder whose copying is interfered with."""

    before_copy: Callable[[ArtifactFile], None]

    def copy(self, file: ArtifactFile, target: int, copied: Callable[[int], None]) -> None:
        """Interfere, then copy."""
        self.before_copy(file)
        super().copy(file, target, copied)


def scripted(folder: Path, before_copy: Callable[[ArtifactFile], None]) -> Scripted:
    """A folder with something that happens before each file is copied."""
    artifacts = Scripted(str(folder), folder)
    artifacts.before_copy = before_copy
    return artifacts


def test_many_stagers_make_one_copy(folder: Path, tmp_path: Path) -> None:
    """Eight threads that stage the same folder at once all get it, and it is copied once."""
    copies: list[str] = []
    artifacts = scripted(folder, lambda file: copies.append(file.name))
    with ThreadPoolExecutor(8) as pool:
        staged = set(pool.map(lambda _: stage(artifacts, tmp_path / "cache", ignore), range(8)))
    assert len(staged) == 1
    assert sorted(copies) == names(artifacts)


def test_processes_wait_for_each_other(folder: Path, tmp_path: Path) -> None:
    """Two other processes that stage the same folder meet in one whole copy."""
    program = (
        "import sys; from pathlib import Path; from headrace.storage import *\n"
        "print(stage(open_artifacts(sys.argv[1]), Path(sys.argv[2]), lambda d, t: None))"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate()[0].strip() for process in running}
    assert answers == {str(tmp_path / "cache" / fingerprint(open_artifacts(str(folder))))}
    assert left_behind(tmp_path / "cache") == []


def test_a_killed_stager_is_taken_over(folder: Path, tmp_path: Path) -> None:
    """What a process left that was killed in the middle is removed, and the next one stages whole."""
    program = (
        "import os, signal, sys; from pathlib import Path; from headrace.storage import *\n"
        "stage(open_artifacts(sys.argv[1]), Path(sys.argv[2]), lambda d, t: os.kill(os.getpid(), signal.SIGKILL))"
    )
    cache = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", program, str(folder), str(cache)], check=False)
    assert killed.returncode == -9
    assert len(left_behind(cache)) == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "f").write_bytes(b"x")
    stage(open_artifacts(str(other)), cache, ignore)
    assert left_behind(cache) == []  # also another folder's stager sweeps what is dead
    assert names(open_artifacts(str(stage(open_artifacts(str(folder)), cache, ignore)))) == names(
        open_artifacts(str(folder))
    )


def test_cancelling_stops_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """A cancelled staging ends with its own error and no half folder."""
    stop = threading.Event()
    with pytest.raises(Cancelled):
        stage(open_artifacts(str(folder)), tmp_path / "cache", lambda _done, _total: stop.set(), stop.is_set)
    assert left_behind(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").glob("[0-9a-f]*"))


def test_a_full_disk_is_found_before_the_first_byte(tmp_path: Path) -> None:
    """A (sparse) file larger than the disk is refused with the numbers, and nothing is written."""
    source = tmp_path / "model"
    source.mkdir()
    (source / "huge").touch()
    os.truncate(source / "huge", 8 * 1024**4)
    with pytest.raises(DiskFull) as caught:
        stage(open_artifacts(str(source)), tmp_path / "cache", ignore)
    assert "8,796,093,022,208 bytes" in caught.value.evidence
    assert "Nothing was written" in caught.value.evidence
    assert left_behind(tmp_path / "cache") == []


def test_a_disk_that_fills_on_the_way_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """ENOSPC, here from the kernel's own full device, becomes `DiskFull`, and the partial copy is gone."""

    def fill(file: ArtifactFile) -> None:
        if file.name == "weights.bin":
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")

    with pytest.raises(DiskFull) as caught:
        stage(scripted(folder, fill), tmp_path / "cache", ignore)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert left_behind(tmp_path / "cache") == []


def test_a_source_that_changes_meanwhile_is_noticed(folder: Path, tmp_path: Path) -> None:
    """A file that grows, is rewritten or appears during the copy fails the staging, and nothing is left."""

    def grow(file: ArtifactFile) -> None:
        if file.name == "weights.bin":
            with (folder / file.name).open("ab") as target:
                target.write(b"more")

    def rewrite(file: ArtifactFile) -> None:
        if file.name == "weights.bin":
            os.utime(folder / "config.json", ns=(7, 7))

    def appear(file: ArtifactFile) -> None:
        (folder / "new").write_bytes(file.name.encode())

    for change in (grow, rewrite, appear):
        with pytest.raises(ArtifactsChanged):
            stage(scripted(folder, change), tmp_path / "cache", ignore)
        assert left_behind(tmp_path / "cache") == []


@pytest.fixture
def bucket() -> fsspec.AbstractFileSystem:
    """fsspec's own in-memory store, as a driver like any other."""
    store = fsspec.filesystem("memory", skip_instance_cache=True)
    store.store.clear()
    return store


def test_a_remote_folder_reads_and_stages_like_a_local_one(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    """Listing, ranges, identity and staging go through any fsspec driver."""
    bucket.pipe(
        {"/b/model/config.json": b"{}", "/b/model/sub/w": b"0123456789", "/b/model/.cache/x": b"y", "/b/model2/x": b""}
    )
    artifacts = RemoteArtifacts("gs://b/model", bucket, "/b/model/")
    assert artifacts.sizes() == {"config.json": 2, "sub/w": 10}
    assert artifacts.read_range("sub/w", 3, 4) == b"3456"
    assert artifacts.read_range("sub/w", 8, 100) == b"89"
    assert artifacts.read_range("sub/w", 20, 5) == b""
    staged = stage(artifacts, tmp_path / "cache", ignore)
    assert (staged / "sub" / "w").read_bytes() == b"0123456789"


def test_a_remote_name_cannot_climb_out(bucket: fsspec.AbstractFileSystem) -> None:
    """An object whose key has .. in it is refused, not written beside the cache."""
    bucket.pipe({"/b/model/config.json": b"{}", "/b/model/../../etc/passwd": b"x"})
    bucket.store.setdefault("/b/model/../evil", bucket.store["/b/model/config.json"])
    with pytest.raises(ArtifactsRefused):
        RemoteArtifacts("gs://b/model", bucket, "/b/model")


def test_a_remote_folder_that_is_not_there(bucket: fsspec.AbstractFileSystem) -> None:
    """An empty prefix and a driver's own exceptions are both `ArtifactsNotFound`."""
    with pytest.raises(ArtifactsNotFound):
        RemoteArtifacts("gs://b/none", bucket, "/b/none")
    bucket.pipe({"/b/model/w": b"0123456789"})
    artifacts = RemoteArtifacts("gs://b/model", bucket, "/b/model")
    bucket.rm("/b/model/w")
    with pytest.raises(ArtifactsNotFound):
        artifacts.read_range("w", 0, 5)


def test_ranges_of_one_object_are_under_way_at_once(tmp_path: Path) -> None:
    """None of three waits for another's end: they meet in the driver."""
    content = os.urandom(2 * PART_BYTES + 5)
    together = threading.Barrier(3, timeout=30)

    class Meeting(MemoryFileSystem):
        cachable = False
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
            together.wait()
            return bytes(super().cat_file(path, start, end))

    store = Meeting()
    store.pipe("/b/model/weights.bin", content)
    staged = stage(RemoteArtifacts("gs://b/model", store, "/b/model"), tmp_path / "cache", ignore)
    assert (staged / "weights.bin").read_bytes() == content


def test_a_full_disk_is_found_before_a_store_is_asked_for_a_byte(tmp_path: Path) -> None:
    """The listing says how much there is: an object larger than the disk is refused with the numbers."""
    asked: list[str] = []

    class Endless(MemoryFileSystem):
        cachable = False

        def find(self, path: str, **_: object) -> dict[str, dict[str, object]]:
            return {f"{path}/weights.bin": {"name": f"{path}/weights.bin", "size": 8 * 1024**4, "type": "file"}}

        def cat_file(self, path: str, *_: object, **__: object) -> bytes:
            asked.append(path)
            return b""

    with pytest.raises(DiskFull) as caught:
        stage(RemoteArtifacts("gs://b/model", Endless(), "/b/model"), tmp_path / "cache", ignore)
    assert "8,796,093,022,208 bytes" in caught.value.evidence
    assert asked == left_behind(tmp_path / "cache") == []


@pytest.mark.parametrize("trap", ["loop", "bytes", "deep"])
def test_odd_folders_are_refused_by_name(folder: Path, trap: str) -> None:
    """A link to itself, a name that is not UTF-8, and folders without end are refused with what was seen."""
    if trap == "loop":
        (folder / "self").symlink_to("self")
    elif trap == "bytes":
        Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.json")).write_bytes(b"")
    else:
        inner = os.open(folder, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=inner)
            outer, inner = inner, os.open("d", os.O_RDONLY, dir_fd=inner)
            os.close(outer)
        os.close(inner)
    try:
        with pytest.raises(ArtifactsRefused) as caught:
            open_artifacts(str(folder))
    finally:  # pytest cannot remove folders as deep
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    seen = {"loop": "leads to self", "bytes": "bad\\xff.json", "deep": "d/d/d"}[trap]
    assert seen in caught.value.evidence
    str(caught.value).encode()


def test_a_folder_that_is_itself_not_utf_8_is_refused(tmp_path: Path) -> None:
    """Nor can a link lead to one."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).mkdir()
    (tmp_path / "link").symlink_to(os.fsdecode(b"\xff"))
    with pytest.raises(ArtifactsRefused) as caught:
        open_artifacts(str(tmp_path / "link"))
    assert caught.value.evidence.endswith("\\xff")
