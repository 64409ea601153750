"""What a node makes by itself of folders that are not quite in order, before any engine sees them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conversion_folders import equal, folder, llama, pickled, sharded, weights_of
from node_standins import NothingToInstall, ScriptedRuntime
from safetensors.numpy import save
from written_pickles import saved, state, tensor, zipped

from headrace.node.loadable import KEY, Loadable, loadable
from headrace.node.stager import Staged, Stager
from headrace.resources.assignments import StageOrder, StageReport
from headrace.resources.errors import Cancelled, ConversionFailed, PickleUnsafe
from headrace.storage import ModelCache, fingerprint, open_artifacts
from headrace.weights import check


def made_of(source: Path) -> Loadable:
    """What engines are given of a staged folder."""
    return loadable(source, lambda *_: None, lambda: False)


def stage(source: Path, models_dir: Path) -> tuple[Staged, list[StageReport]]:
    """Stage a folder for a runtime that loads any, and everything that was reported meanwhile."""
    reports: list[StageReport] = []

    async def run() -> Staged:
        stager = Stager(
            ModelCache(models_dir),
            {"scripted": ScriptedRuntime()},
            NothingToInstall(),
            lambda: reports.extend(stager.reports),
        )
        uri = f"file://{source}"
        order = StageOrder(artifact_uri=uri, fingerprint=fingerprint(open_artifacts(uri)), runtime="scripted")
        return await stager.staged(order)

    return asyncio.run(run()), reports


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ({"pytorch_model.bin": saved(llama())}, "safetensors from a pickle"),
        ({"river.pt": saved(llama()), "optimizer.pt": b"of a training"}, "safetensors from a pickle"),
        (sharded(llama()), "safetensors from 2 pickles"),
        (sharded(llama(), "safetensors", index=False), "an index for its files"),
    ],
)
def test_staging_writes_anew_what_the_doctor_warns_of(weights: dict[str, bytes], what: str, tmp_path: Path) -> None:
    """Once for each content, said in the timeline's words; the engine gets the same tensors."""
    source = folder(tmp_path / "source", weights)
    staged, reports = stage(source, tmp_path / "models")
    assert staged.model_dir.name.endswith(f".{KEY}")
    assert equal(weights_of(staged.model_dir), llama())
    assert [report.phase for report in reports] == ["copying", "converting", "done"]
    assert reports[-1].detail.startswith(f"Converted to {what}, in ")
    again, reports = stage(source, tmp_path / "models")
    assert again == staged
    assert reports[-1].detail == f"{what[0].upper()}{what[1:]}, was there already: nothing to convert."


def test_a_tokenizer_that_engines_cannot_read_is_written_for_them(tmp_path: Path) -> None:
    """A SentencePiece model alone becomes a `tokenizer.json` beside it."""
    source = folder(tmp_path / "source", {"model.safetensors": save(llama(), metadata={"format": "pt"})}, vocab_size=10)
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    (source / "spiece.model").write_bytes(PIECES)
    made = made_of(source)
    assert made.what == "tokenizer.json from spiece.model"
    assert (made.folder / "model.safetensors").samefile(source / "model.safetensors")
    assert (made.folder / "spiece.model").read_bytes() == PIECES
    assert '"Unigram"' in (made.folder / "tokenizer.json").read_text()


PIECES = b"\x0a\x09\x0a\x05<unk>\x18\x02\x0a\x0a\x0a\x01a\x15\x00\x00\x80\xbf\x18\x01"
"""A model of two pieces: the unknown one, and a letter."""


def test_a_folder_in_order_is_loaded_where_it_was_staged(tmp_path: Path) -> None:
    """Nothing is written, nothing said; so for what is no folder of a model at all."""
    source = folder(tmp_path / "source", {"model.safetensors": save(llama(), metadata={"format": "pt"})})
    staged, reports = stage(source, tmp_path / "models")
    assert "." not in staged.model_dir.name
    assert (reports[-1].detail, reports[-1].found) == ("", "")
    assert made_of(PICKLES) == Loadable(PICKLES)


def test_a_format_that_is_not_noted_costs_no_copy(tmp_path: Path) -> None:
    """Engines load it as it is, also where something around it is written anew."""
    unnoted = save(llama())
    assert made_of(one := folder(tmp_path / "one", {"model.safetensors": unnoted})) == Loadable(one)
    made = made_of(folder(tmp_path / "named", {"weights.safetensors": unnoted}))
    assert made.what == "model.safetensors from weights.safetensors"
    assert (made.folder / "model.safetensors").read_bytes() == unnoted


@pytest.mark.parametrize("index", ["missing", "wrong"])
def test_weights_in_order_are_not_copied(index: str, tmp_path: Path) -> None:
    """Only what is missing around them is written: their files get second names, and outlive the first ones."""
    files = sharded(llama(), "safetensors", index=False)
    if index == "wrong":
        files["model.safetensors.index.json"] = b"{}"
    source = folder(tmp_path / "source", files)
    made = made_of(source)
    for name in files:
        if name.endswith(".safetensors"):
            assert (made.folder / name).samefile(source / name)
    assert not (made.folder / "config.json").samefile(source / "config.json")
    assert [finding.code for finding in check(open_artifacts(str(made.folder)))] == ["CHAT_TEMPLATE_MISSING"]
    shutil.rmtree(source)
    assert equal(weights_of(made.folder), llama())


def test_where_a_file_has_no_second_name_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without hard links; nothing is left of the attempt."""
    source = folder(tmp_path / "source", sharded(llama(), "safetensors", index=False))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    made = made_of(source)
    assert equal(weights_of(made.folder), llama())
    assert sorted(name for name in os.listdir(tmp_path) if not name.endswith(".lock")) == ["source", made.folder.name]


def test_a_file_that_would_be_taken_for_the_whole_is_not_linked(tmp_path: Path) -> None:
    """One of several is called as a model of one file is: written anew, under names of the index."""
    first, second = (save(part, metadata={"format": "pt"}) for part in halves())
    made = made_of(folder(tmp_path / "source", {"model.safetensors": first, "more.safetensors": second}))
    assert equal(weights_of(made.folder), llama())
    assert [path.name for path in made.folder.glob("*.safetensors")] == ["model.safetensors"]


def halves() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The tensors of a model in two parts."""
    every = list(llama().items())
    return dict(every[:9]), dict(every[9:])


PICKLES = Path(__file__).with_name("fixtures_pickles")


def test_what_cannot_be_written_anew_is_served_as_it_is_and_that_is_said(tmp_path: Path) -> None:
    """An engine may know better than we do: a pickle in a compressed zip, a tensor in two files."""
    for name, weights in {
        "compressed": {"pytorch_model.bin": saved(llama(), method=8)},
        "twice": {"a.safetensors": save({"n": np.arange(3)}), "b.safetensors": save({"n": np.arange(3)})},
    }.items():
        source = folder(tmp_path / name, weights)
        made = made_of(source)
        assert made.folder == source
        assert made.kept.startswith("Served as it is: ")


def test_what_no_engine_looks_for_is_written_anew_or_refused(tmp_path: Path) -> None:
    """A `.pt` that cannot be written anew is not handed to an engine that would say that there are no weights."""
    with pytest.raises(ConversionFailed):
        made_of(folder(tmp_path / "source", {"river.pt": saved(llama(), method=8)}))


def test_a_pickle_that_would_run_is_never_served(tmp_path: Path) -> None:
    """Also if it came past CHECKING."""
    evil = zipped(state(w=tensor())[:-1] + b"cos\nsystem\n(X\x04\x00\x00\x00trueoR0.")
    with pytest.raises(PickleUnsafe):
        made_of(folder(tmp_path / "source", {"pytorch_model.bin": evil}))


def test_a_conversion_that_is_not_wanted_any_more_leaves_nothing(tmp_path: Path) -> None:
    """As an order goes away: between two pieces, with no trace but its lock."""
    source = pickled(tmp_path / "source")
    with pytest.raises(Cancelled):
        loadable(source, lambda *_: None, lambda: True)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["source"]
