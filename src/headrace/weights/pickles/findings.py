"""What is wrong or odd about a folder's pickles."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from headrace.resources.errors import ArtifactsNotFound, HeadraceError, PickleUnsafe, WeightsPickled
from headrace.weights.finding import Finding, attempt, finding_of
from headrace.weights.pickles.checkpoint import PickledFile, read_pickle
from headrace.weights.reader import FolderReader

_ENDINGS = (".bin", ".pt", ".pth", ".ckpt")
_NO_PICKLES = ("openvino_", "ggml", "tokenizer", "onnx")
"""Beginnings of files of other programs that end alike."""


def check_loaded(reader: FolderReader, names: tuple[str, ...]) -> tuple[list[Finding], list[PickledFile]]:
    """Look into the files that a runtime would load: what is wrong with them, and what those say that can be read.

    Raises:
        ArtifactsNotFound: The reader cannot read any more.
    """
    found: list[Finding] = []
    read = [file for name in names if (file := attempt(partial(read_pickle, reader, name), name, found))]
    if found:
        return found, read
    older = sum(file.legacy for file in read)
    pickled = WeightsPickled(
        "The weights are pickles: their tensors' names and shapes were read, and nothing was run.",
        evidence=f"{len(names)} file(s), {sum(reader.sizes()[name] for name in names):,} bytes, "
        f"{sum(file.parameters for file in read):,} parameters"
        + (f"; {older} of torch's form before 1.6, without a zip." if older else "."),
        fix="Nothing: a deployment copies the numbers into safetensors. Or `headrace convert FOLDER NEW_FOLDER`: they "
        "load faster, and nobody who gets them has to trust them.",
    )
    return [finding_of(pickled, names[0], "warning")], read


def check_unloaded(reader: FolderReader, loaded: tuple[str, ...], not_the_model: tuple[str, ...]) -> Iterator[Finding]:
    """Name the pickles beside the weights that would run code. No runtime of ours loads them, so that is a warning.

    Args:
        reader: The folder.
        loaded: The files that a runtime loads.
        not_the_model: Beginnings of names of files that hold a training's state, which are arbitrary pickles by nature.

    Raises:
        ArtifactsNotFound: The reader cannot read any more.
    """
    for name in sorted(reader.sizes()):
        if name in loaded or "/" in name or not name.endswith(_ENDINGS):
            continue
        if name.startswith((*not_the_model, *_NO_PICKLES)):
            continue
        try:
            read_pickle(reader, name)
        except ArtifactsNotFound:
            raise
        except PickleUnsafe as unsafe:
            yield finding_of(unsafe, name, "warning")
        except HeadraceError:
            continue  # nobody loads it: that it is no pickle of tensors is nobody's loss
