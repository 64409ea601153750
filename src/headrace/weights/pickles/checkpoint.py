"""One file that ``torch.save`` wrote, in its zip or in the older form: its tensors' names, types, shapes and places."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.resources.errors import PickleUnsafe, WeightsCorrupt, WeightsTruncated
from headrace.weights.header import TensorEntry
from headrace.weights.pickles.archive import MAX_PICKLE_BYTES, read_archive
from headrace.weights.pickles.machine import Machine, PickleEnds
from headrace.weights.pickles.symbols import ITEM_BYTES, PickleRefused, Tensor
from headrace.weights.reader import FolderReader

_ZIP = b"PK\x03\x04"
_GIT_LFS_POINTER = b"version https://git-lfs"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value of torch's form before version 1.6 (``MAGIC_NUMBER`` in ``torch/serialization.py``)."""

_FIRST_LOOK_BYTES = 256 * 1024
"""What is read first of the older form, whose pickle stands at its beginning and does not say how long it is."""


class PickledFile(msgspec.Struct, frozen=True):
    """What a file's pickle describes.

    Attributes:
        file: The file's name.
        tensors: Its tensors, by name, in the order in which it has them.
        parameters: Elements in all tensors; those that share their numbers (a tied head) count once.
        bytes_by_dtype: What they take, by element type, counted likewise.
        legacy: It is of torch's form before 1.6, without a zip.
    """

    file: str
    tensors: tuple[TensorEntry, ...]
    parameters: int
    bytes_by_dtype: dict[str, int]
    legacy: bool


def read_pickle(reader: FolderReader, name: str) -> PickledFile:
    """Read what a file says about its tensors; nothing that it says is carried out.

    Raises:
        PickleUnsafe: It names something that is no part of a tensor.
        WeightsCorrupt: It is not a file that ``torch.save`` wrote.
        WeightsTruncated: It ends too early.
    """
    start = reader.read_range(name, 0, len(_GIT_LFS_POINTER))
    if start == _GIT_LFS_POINTER:
        raise WeightsTruncated(
            f"{name} is a Git LFS pointer, not the file itself.",
            evidence=f"{name} has {reader.sizes()[name]:,} bytes and begins with {start.decode()!r}.",
            fix="Run `git lfs pull` in the repository that the folder was cloned from.",
        )
    if not start:
        raise _truncated(name, "it is empty")
    legacy = not start.startswith(_ZIP)
    try:
        state, record_bytes = _read_legacy(reader, name) if legacy else _read_zip(reader, name)
        return _described(name, state, record_bytes, legacy=legacy)
    except PickleEnds as error:
        raise _truncated(name, str(error)) from error
    except zipfile.BadZipFile as error:
        raise _truncated(name, f"it begins as a zip and does not end as one ({str(error)[:80]})") from error
    except PickleRefused as error:
        raise WeightsCorrupt(
            f"{name} is not a file that torch.save wrote.",
            evidence=f"{name}: {error}.",
            fix="Copy the file from the model's source again.",
        ) from error


def _read_zip(reader: FolderReader, name: str) -> tuple[Any, Mapping[str, int]]:
    archive = read_archive(reader, name)
    return _run(Machine(archive.pickle), name), archive.record_bytes


def _read_legacy(reader: FolderReader, name: str) -> tuple[Any, None]:
    file_bytes = reader.sizes()[name]
    content = reader.read_range(name, 0, min(file_bytes, _FIRST_LOOK_BYTES))
    try:
        return _run_legacy(content, name, file_bytes), None
    except PickleEnds:
        if len(content) >= file_bytes:
            raise
    content = reader.read_range(name, 0, min(file_bytes, MAX_PICKLE_BYTES))
    try:
        return _run_legacy(content, name, file_bytes), None
    except PickleEnds as error:
        if len(content) < file_bytes:
            raise PickleRefused(f"its pickle does not end within {MAX_PICKLE_BYTES:,} bytes") from error
        raise


def _run_legacy(content: bytes, name: str, file_bytes: int) -> Any:
    """Five pickles one after another: a magic number, the protocol, the writer's system, the tensors, the storages."""
    machine = Machine(content)
    if _run(machine, name) != _LEGACY_MAGIC:
        raise PickleRefused("it is neither a zip nor torch's older form")
    for _ in range(2):
        machine = Machine(content, machine.position)
        _run(machine, name)
    machine = Machine(content, machine.position)
    state = _run(machine, name)
    machine = Machine(content, machine.position)  # the keys of its storages, in their order
    _run(machine, name)
    held = {tensor.storage.key: tensor.storage for tensor in _tensors(state).values()}
    needed = sum(8 + storage.elements * ITEM_BYTES.get(storage.dtype, 1) for storage in held.values())
    if machine.position + needed > file_bytes:
        raise PickleEnds(f"its tensors take {needed:,} bytes and the file has {file_bytes:,}")
    return state


def _run(machine: Machine, name: str) -> Any:
    """What a pickle describes; whatever else is wrong with it, what it wanted to run is told first."""
    try:
        return machine.run()
    finally:
        if machine.unsafe:
            raise PickleUnsafe(
                f"{name} would run code when it is loaded; it was not run.",
                evidence=f"Its pickle asks for {', '.join(machine.unsafe)}.",
                fix="Do not load it. Get the model as safetensors, from a source that you trust.",
            )


def _tensors(state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        raise PickleRefused("what it holds is not a dict of tensors by name")
    return {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _described(name: str, state: Any, record_bytes: Mapping[str, int] | None, *, legacy: bool) -> PickledFile:
    tensors = _tensors(state)
    if not tensors:
        raise PickleRefused("it holds no tensor by name")
    seen: set[tuple[str, int, tuple[int, ...]]] = set()
    bytes_by_dtype: Counter[str] = Counter()
    entries: list[TensorEntry] = []
    parameters = 0
    for key, tensor in tensors.items():
        _require_inside(name, key, tensor, record_bytes)
        entry = _entry(name, key, tensor)
        entries.append(entry)
        place = (tensor.storage.key, tensor.offset, tensor.shape)
        if place not in seen:
            seen.add(place)
            parameters += entry.elements
            bytes_by_dtype[entry.dtype] += entry.size_bytes
    return PickledFile(name, tuple(entries), parameters, dict(bytes_by_dtype), legacy)


def _entry(name: str, key: str, tensor: Tensor) -> TensorEntry:
    entry = TensorEntry(key, tensor.dtype, tensor.shape, 0, name)
    return msgspec.structs.replace(entry, size_bytes=entry.elements * ITEM_BYTES[tensor.dtype])


def _require_inside(name: str, key: str, tensor: Tensor, record_bytes: Mapping[str, int] | None) -> None:
    """Hold a tensor against its storage, and its storage against the file's record of it."""
    storage = tensor.storage
    held_bytes = storage.elements * ITEM_BYTES.get(storage.dtype, 1)
    if tensor.reach * ITEM_BYTES[tensor.dtype] > held_bytes:
        raise PickleRefused(f"{key[:120]} reaches beyond its storage of {held_bytes:,} bytes")
    if record_bytes is None:
        return
    there = record_bytes.get(storage.key)
    if there is None:
        raise PickleRefused(f"the numbers of {key[:120]} are not in its zip")
    if there < held_bytes:
        raise _truncated(name, f"{key[:120]} needs {held_bytes:,} bytes and its zip has {there:,} of them")


def _truncated(name: str, evidence: str) -> WeightsTruncated:
    return WeightsTruncated(
        f"{name} is cut off.", evidence=f"{name}: {evidence}.", fix="Copy the file from the model's source again."
    )
