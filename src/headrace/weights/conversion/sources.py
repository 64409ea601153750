"""What a folder's weight files hold, and what about them is not the form that every engine loads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from headrace.resources.errors import (
    HeadraceError,
    TensorsDuplicated,
    WeightsFormat,
    WeightsMissing,
)
from headrace.weights.conversion.tensors import StoredTensor, from_header, from_pickle
from headrace.weights.file_set import FRAMEWORKS_READ
from headrace.weights.folder import (
    BIN_INDEX_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    find_weights,
    indexed_tensors,
    require_indexed_tensors,
    safetensors_files,
)
from headrace.weights.header import SafetensorsHeader, TensorEntry, read_header
from headrace.weights.pickles import PickledFile, read_places, require_placeable
from headrace.weights.reader import FolderReader


class Sources(msgspec.Struct, frozen=True):
    """The weights of a folder.

    Attributes:
        tensors: All of them.
        reasons: What has to be made of them, as parts of a sentence; none where they are in order.
        in_order: Each file is one that an engine loads as it is, whatever is missing around it.
        unnoted: Their files do not say that PyTorch wrote them, which every engine here loads all the same.
    """

    tensors: tuple[StoredTensor, ...]
    reasons: tuple[str, ...]
    in_order: bool = False
    unnoted: bool = False


def read_sources(reader: FolderReader) -> Sources:
    """Read headers and pickles' descriptions.

    Raises:
        ConversionFailed: As `read_places`.
        TensorsDuplicated: A tensor is in two files, and nothing says which of them counts.
        WeightsFormat: A framework wrote the files that lays tensors out otherwise.
        WeightsMissing: There are none, or the index names tensors that are in no file.
        HeadraceError: A file is broken, or would run code.
    """
    if names := safetensors_files(reader):
        return _from_safetensors(reader, names)
    _, names = find_weights(reader)  # what is neither is refused there, with the reason
    placed = {name: read_places(reader, name) for name in names}
    tensors = tuple(tensor for name in names for tensor in from_pickle(name, placed[name]))
    entries = tuple(TensorEntry(tensor.name, tensor.dtype, tensor.shape, 0, tensor.file) for tensor in tensors)
    require_indexed_tensors(reader, entries, BIN_INDEX_FILE)
    _require_once(tensors)
    files = "a pickle" if len(names) == 1 else f"{len(names)} pickles"
    return Sources(tensors, (f"safetensors from {files}",))


def require_writable(reader: FolderReader, files: Sequence[PickledFile]) -> None:
    """Hold that pickles can be written anew, before their tensors' places are looked for.

    Raises:
        ConversionFailed: As `require_placeable`.
        TensorsDuplicated: A tensor is in two files, and nothing says which of them counts.
    """
    for file in files:
        require_placeable(reader, file.file)
    _require_once(tensor for file in files for tensor in file.tensors)


def _from_safetensors(reader: FolderReader, names: tuple[str, ...]) -> Sources:
    headers = [read_header(reader, name) for name in names]
    reasons: list[str] = []
    named = _indexed(reader, headers)
    if named is not None:
        headers = named
        indexed = indexed_tensors(reader)
        if any(entry.name not in indexed for entry in _entries(headers)):
            reasons.append("the index completed")
    elif INDEX_FILE in reader.sizes():
        _require_all_indexed(reader, headers)
        reasons.append("the index rebuilt")
    elif len(names) > 1:
        reasons.append("an index for its files")
    elif names[0] != SINGLE_FILE:
        reasons.append(f"{SINGLE_FILE} from {names[0]}")
    unnoted = bool(_unmarked(headers))
    tensors = tuple(tensor for header in headers for tensor in from_header(header))
    _require_once(tensors)
    return Sources(tensors, tuple(reasons), in_order=True, unnoted=unnoted)


def _indexed(reader: FolderReader, headers: Sequence[SafetensorsHeader]) -> list[SafetensorsHeader] | None:
    """The headers of the files that an index names, if every tensor is where it says; None without such an index."""
    if INDEX_FILE not in reader.sizes():
        return None
    try:
        indexed = indexed_tensors(reader)
        files = set(indexed.values())
        named = [header for header in headers if header.file in files]
        require_indexed_tensors(reader, tuple(_entries(named)))
    except HeadraceError:
        return None
    return named


def _require_all_indexed(reader: FolderReader, headers: Sequence[SafetensorsHeader]) -> None:
    """Hold that an index that is wrong about places names no tensor that is nowhere."""
    try:
        indexed = indexed_tensors(reader)
    except HeadraceError:
        return  # it says nothing
    present = {entry.name for entry in _entries(headers)}
    if missing := [name for name in indexed if name not in present]:
        raise WeightsMissing(
            f"{len(missing)} tensors that {INDEX_FILE} names are in no file.",
            evidence=f"Missing: {', '.join(name[:120] for name in missing[:3])}{' …' if missing[3:] else ''}.",
            fix="Copy the missing files from the model's source.",
        )


def _unmarked(headers: Iterable[SafetensorsHeader]) -> list[str]:
    """The files that do not say that PyTorch wrote them.

    Raises:
        WeightsFormat: One says that another framework did.
    """
    unmarked: list[str] = []
    for header in headers:
        written = header.metadata.get("format")
        if written is not None and written not in FRAMEWORKS_READ:
            raise WeightsFormat(
                "The tensors may lie otherwise than PyTorch's, which a conversion of files cannot tell.",
                evidence=f"`format` is {written[:40]!r} in {header.file}.",
                fix="Load the model with transformers and save it with save_pretrained.",
            )
        if written != "pt":
            unmarked.append(header.file)
    return unmarked


def _require_once(tensors: Iterable[StoredTensor] | Iterable[TensorEntry]) -> None:
    first: dict[str, str] = {}
    for tensor in tensors:
        if (other := first.setdefault(tensor.name, tensor.file)) != tensor.file:
            raise TensorsDuplicated(
                "A tensor is in two files, and nothing says which of them counts.",
                evidence=f"{tensor.name[:120]} is in {other} and in {tensor.file}.",
                fix="Remove the files that do not belong to the model, or copy it again from one revision.",
            )


def _entries(headers: Iterable[SafetensorsHeader]) -> Iterable[TensorEntry]:
    return (entry for header in headers for entry in header.tensors)
