"""`headrace convert`: what it prints and how it ends; whatever happens, a folder is whole or not there."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from conversion_folders import equal, folder, llama, pickled, weights_of
from safetensors.numpy import save
from written_pickles import saved

from headrace.cli import convert
from headrace.cli.app import run


def test_a_converted_folder_can_be_deployed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People read what was made and what comes next, programs one JSON document; nothing is left to convert."""
    source = pickled(tmp_path / "source")
    assert run(["convert", str(source), str(tmp_path / "made")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("safetensors from a pickle" in line for line in lines)
    assert lines[-1].startswith("Next: headrace deploy ")
    (tmp_path / "empty").mkdir()
    assert run(["convert", str(source), str(tmp_path / "empty"), "--dtype", "bfloat16", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["made"] == "safetensors from a pickle, 21 tensors rounded to bfloat16"
    assert equal(weights_of(tmp_path / "made"), llama())
    assert run(["convert", str(tmp_path / "made"), str(tmp_path / "again"), "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "NOTHING_TO_CONVERT"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "made", "source"]


def test_an_address_of_this_machine_is_its_path(tmp_path: Path) -> None:
    """Read where it lies: nothing is fetched."""
    source = pickled(tmp_path / "the source")
    assert run(["convert", f"file://{str(source).replace(' ', '%20')}", str(tmp_path / "new"), "--json"]) == 0
    assert equal(weights_of(tmp_path / "new"), llama())
    assert left(tmp_path) == ["new", "the source"]


def test_a_state_dict_that_torch_saved_is_taken_before_a_gguf(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a name that no engine looks for, and beside a copy that was quantised from it: the numbers themselves."""
    source = folder(tmp_path / "source", {"river.pt": saved(llama()), "river.Q4_1.gguf": b"GGUF"})
    assert run(["convert", str(source), str(tmp_path / "new"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["made"] == "safetensors from a pickle"
    assert equal(weights_of(tmp_path / "new"), llama())


def left(root: Path) -> list[str]:
    """Everything there, hidden things too."""
    return sorted(os.listdir(root))


@pytest.mark.parametrize(
    ("source", "destination", "code", "status"),
    [
        ("nowhere", "new", "ARTIFACTS_NOT_FOUND", 3),
        ("nowhere.gguf", "new", "ARTIFACTS_NOT_FOUND", 3),
        ("ftp://bucket/river", "new", "SCHEME_NOT_SUPPORTED", 1),
        ("file://elsewhere/river", "new", "BAD_FIELD", 2),
        ("file:///nowhere/river", "new", "ARTIFACTS_NOT_FOUND", 3),
        ("source", "full", "DESTINATION_NOT_EMPTY", 1),
        ("source", "file", "DESTINATION_NOT_EMPTY", 1),
        ("source", "source", "DESTINATION_NOT_EMPTY", 1),
        ("source", "source/new", "BAD_FIELD", 2),
        ("huge", "new", "DISK_FULL", 1),
        ("no tokenizer", "new", "TOKENIZER_MISSING", 1),
        ("half", "new", "TENSORS_MISSING", 1),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, destination: str, code: str, status: int
) -> None:
    """Code, evidence and fix on stderr; what was there before is there, and nothing else."""
    pickled(tmp_path / "source")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with (pickled(tmp_path / "huge") / "notes.txt").open("wb") as notes:
        notes.truncate(shutil.disk_usage(tmp_path).free)  # sparse: a length, and no blocks
    (pickled(tmp_path / "no tokenizer") / "tokenizer.json").unlink()
    pickled(tmp_path / "half", {name: array for name, array in llama().items() if "layers.1" not in name})
    before = left(tmp_path)
    said = source if "://" in source else str(tmp_path / source)
    assert run(["convert", said, str(tmp_path / destination), "--json"]) == status
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == code
    assert left(tmp_path) == before
    assert left(tmp_path / "full") == ["mine"]


def test_what_a_killed_conversion_left_goes_with_the_next(tmp_path: Path) -> None:
    """Of the same name; another's that is still at work stays."""
    source = pickled(tmp_path / "source")
    for name in (".new.dead.partial", ".new.alive.partial", ".other.dead.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    descriptor = os.open(tmp_path / ".new.alive.partial", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert run(["convert", str(source), str(tmp_path / "new"), "--json"]) == 0
    os.close(descriptor)
    assert left(tmp_path) == [".new.alive.partial", ".other.dead.partial", "new", "source"]


@pytest.mark.parametrize("where", ["file/new", "n" * 300, "n" * 250, "there/..", "/proc/none/new"])
def test_a_place_where_no_folder_can_be_made_is_said(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file above it, a name too long, a system that has no folders: whoever named it is told, with nothing left."""
    source = pickled(tmp_path / "source")
    (tmp_path / "file").write_text("mine")
    (tmp_path / ".new.x.partial").write_text("mine")
    (tmp_path / "there").mkdir()
    before = left(tmp_path)
    assert run(["convert", str(source), os.path.join(str(tmp_path), where), "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "BAD_FIELD"
    assert left(tmp_path) == before
    assert run(["convert", str(source), str(tmp_path / "new"), "--json"]) == 0
    assert (tmp_path / ".new.x.partial").read_text() == "mine"


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real signal in the middle of the first file: exit code 130, and no trace of the folder."""
    source = folder(tmp_path / "source", {"model.safetensors": save(llama())})
    monkeypatch.setattr(convert, "_tell", lambda *_: signal.raise_signal(signal.SIGINT))
    assert run(["convert", str(source), str(tmp_path / "new")]) == 130
    assert left(tmp_path) == ["source"]
