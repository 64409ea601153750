"""One file that ``torch.save`` wrote, in its zip or in the older form: its tensors' names, types, shapes and places."""

from __future__ import annotations

import json
import shlex
import zipfile
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.resources.errors import PickleUnsafe, WeightsCorrupt, WeightsTruncated
from headrace.weights.beginnings import BEGINNING_BYTES, not_weights
from headrace.weights.header import TensorEntry
from headrace.weights.pickles.archive import MAX_PICKLE_BYTES, Archive, Record, read_archive
from headrace.weights.pickles.machine import Machine, PickleEnds
from headrace.weights.pickles.symbols import ITEM_BYTES, PickleRefused, Storage, Tensor
from headrace.weights.reader import FolderReader

_ZIP = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value of torch's form before version 1.6 (``MAGIC_NUMBER`` in ``torch/serialization.py``)."""

_LEVELS = 3
"""How deep the weights of a training's checkpoint are looked for."""

_FIRST_LOOK_BYTES = 256 * 1024
"""What is read first of the older form, whose pickle stands at its beginning and does not say how long it is."""


class Legacy(msgspec.Struct, frozen=True):
    """Where the older form keeps its numbers: behind the pickles, one storage after another.

    Attributes:
        data_at: The byte of the file where the first storage begins: 8 bytes of its length, then its numbers.
        storages: All of them, in that order.
        little_endian: As the pickle of the writer's system says.
    """

    data_at: int
    storages: tuple[Storage, ...]
    little_endian: bool


class Content(msgspec.Struct, frozen=True):
    """What a file's pickle says, as descriptions, and where the numbers are.

    Attributes:
        state: The values by name, tensors among them.
        place: The zip's records, or the older form's order.
    """

    state: dict[Any, Any]
    place: Archive | Legacy

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that have a name."""
        return {key: value for key, value in self.state.items() if isinstance(key, str) and isinstance(value, Tensor)}


class PickledFile(msgspec.Struct, frozen=True):
    """What a file's pickle describes.

    Attributes:
        file: The file's name.
        tensors: Its tensors, by name, in the order in which it has them.
        parameters: Elements in all tensors; those that share their numbers (a tied head) count once.
        bytes_by_dtype: What they take, by element type, counted likewise.
        legacy: It is of torch's form before 1.6, without a zip.
        shared: The tensors whose numbers another name has, too: a head that is tied to its embedding.
    """

    file: str
    tensors: tuple[TensorEntry, ...]
    parameters: int
    bytes_by_dtype: dict[str, int]
    legacy: bool
    shared: frozenset[str] = frozenset()


def read_pickle(reader: FolderReader, name: str) -> PickledFile:
    """Describe a file's tensors; raises as `read_content`."""
    content = read_content(reader, name)
    entries: list[TensorEntry] = []
    bytes_by_dtype: Counter[str] = Counter()
    names: dict[tuple[str, int, tuple[int, ...]], list[str]] = {}
    parameters = 0
    for key, tensor in content.tensors.items():
        entry = _entry(name, key, tensor)
        entries.append(entry)
        same = names.setdefault((tensor.storage.key, tensor.offset, tensor.shape), [])
        same.append(key)
        if len(same) == 1:
            parameters += entry.elements
            bytes_by_dtype[entry.dtype] += entry.size_bytes
    legacy = isinstance(content.place, Legacy)
    shared = frozenset(key for same in names.values() if len(same) > 1 for key in same)
    return PickledFile(name, tuple(entries), parameters, dict(bytes_by_dtype), legacy, shared)


def read_content(reader: FolderReader, name: str) -> Content:
    """Read what a file says about its tensors, each of them held against its storage; nothing is carried out.

    Raises:
        PickleUnsafe: It names something that is no part of a tensor.
        WeightsCorrupt: It is not a file that ``torch.save`` wrote.
        WeightsTruncated: It ends too early.
    """
    start = reader.read_range(name, 0, BEGINNING_BYTES)
    if other := not_weights(name, start, reader.sizes()[name]):
        raise other
    if not start:
        raise _truncated(name, "it is empty")
    try:
        content = _read_zip(reader, name) if start.startswith(_ZIP) else _read_legacy(reader, name)
        _require_whole(name, content)
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
    return content


def _read_zip(reader: FolderReader, name: str) -> Content:
    archive = read_archive(reader, name)
    return Content(_as_state(_run(Machine(archive.pickle), name)), archive)


def _read_legacy(reader: FolderReader, name: str) -> Content:
    file_bytes = reader.sizes()[name]
    content = reader.read_range(name, 0, min(file_bytes, _FIRST_LOOK_BYTES))
    try:
        return _run_legacy(content, name, file_bytes)
    except PickleEnds:
        if len(content) >= file_bytes:
            raise
    content = reader.read_range(name, 0, min(file_bytes, MAX_PICKLE_BYTES))
    try:
        return _run_legacy(content, name, file_bytes)
    except PickleEnds as error:
        if len(content) < file_bytes:
            raise PickleRefused(f"its pickle does not end within {MAX_PICKLE_BYTES:,} bytes") from error
        raise


def _run_legacy(content: bytes, name: str, file_bytes: int) -> Content:
    """Five pickles one after another: a magic number, the protocol, the writer's system, the tensors, the storages."""
    machine = Machine(content)
    if _run(machine, name) != _LEGACY_MAGIC:
        raise PickleRefused("it is neither a zip nor torch's older form")
    machine = Machine(content, machine.position)
    _run(machine, name)
    machine = Machine(content, machine.position)
    system = _run(machine, name)
    machine = Machine(content, machine.position)
    state = _as_state(_run(machine, name))
    held = machine.storages
    machine = Machine(content, machine.position)
    keys = _run(machine, name)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(held):
        raise PickleRefused("its list of storages names others than its tensors do")
    needed = sum(8 + storage.elements * ITEM_BYTES.get(storage.dtype, 1) for storage in held.values())
    if machine.position + needed > file_bytes:
        raise PickleEnds(f"its tensors take {needed:,} bytes and the file has {file_bytes:,}")
    little_endian = not (isinstance(system, dict) and system.get("little_endian") is False)
    return Content(state, Legacy(machine.position, tuple(held[key] for key in keys), little_endian))


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


def _as_state(said: Any) -> dict[Any, Any]:
    if not isinstance(said, dict):
        raise PickleRefused("what it holds is not a dict of tensors by name")
    return said


def _require_whole(name: str, content: Content) -> None:
    deeper = _deeper(content.state)
    if deeper and deeper[0][1] > len(content.tensors):  # a loss or a step may stand as a tensor beside the weights
        raise _too_deep(name, deeper)
    if not content.tensors:
        raise PickleRefused("it holds no tensor by name")
    records = content.place.records if isinstance(content.place, Archive) else None
    for key, tensor in content.tensors.items():
        _require_inside(name, key, tensor, records)


def _deeper(state: dict[Any, Any]) -> list[tuple[tuple[str, ...], int]]:
    """The keys that lead to dicts within a state that have tensors by name, with how many; those with the most first.

    Each dict is looked into once: a pickle may name one many times, also within itself.
    """
    found: list[tuple[tuple[str, ...], int]] = []
    level: list[tuple[tuple[str, ...], dict[Any, Any]]] = [((), state)]
    seen = {id(state)}
    for _ in range(_LEVELS):
        within = [((*keys, key), value) for keys, held in level for key, value in held.items() if isinstance(key, str)]
        level = []
        for keys, value in within:
            if isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                level.append((keys, value))
                if count := sum(isinstance(key, str) and isinstance(each, Tensor) for key, each in value.items()):
                    found.append((keys, count))
    return sorted(found, key=lambda each: -each[1])


def _entry(name: str, key: str, tensor: Tensor) -> TensorEntry:
    entry = TensorEntry(key, tensor.dtype, tensor.shape, 0, name)
    return msgspec.structs.replace(entry, size_bytes=entry.elements * ITEM_BYTES[tensor.dtype])


def _require_inside(name: str, key: str, tensor: Tensor, records: Mapping[str, Record] | None) -> None:
    """Hold a tensor against its storage, and its storage against the file's record of it."""
    storage = tensor.storage
    held_bytes = storage.elements * ITEM_BYTES.get(storage.dtype, 1)
    if tensor.reach * ITEM_BYTES[tensor.dtype] > held_bytes:
        raise PickleRefused(f"{key[:120]} reaches beyond its storage of {held_bytes:,} bytes")
    if records is None:
        return
    record = records.get(storage.key)
    if record is None:
        raise PickleRefused(f"the numbers of {key[:120]} are not in its zip")
    if record.size_bytes < held_bytes:
        raise _truncated(name, f"{key[:120]} needs {held_bytes:,} bytes and its zip has {record.size_bytes:,} of them")


def _too_deep(name: str, found: list[tuple[tuple[str, ...], int]]) -> WeightsCorrupt:
    shown = [f"{_way(keys)} ({count} tensors)" for keys, count in found[:3]]
    kept = f"{name}.bak"
    indices = "".join(f"[{json.dumps(key[:200])}]" for key in found[0][0])
    flat = f'torch.load({json.dumps(kept)}, map_location="cpu", weights_only=True){indices}'
    program = f"import torch; torch.save({flat}, {json.dumps(name)})"
    return WeightsCorrupt(
        f"{name} is a training checkpoint: its weights are under {_way(found[0][0])}.",
        evidence=f"{name}: tensors lie deeper, in {', '.join(shown)}; engines look for them at the top.",
        fix=f"In the folder, with a Python that has torch: `mv {shlex.quote(name)} {shlex.quote(kept)}`, then "
        f"`python -c {shlex.quote(program)}`.",
    )


def _way(keys: tuple[str, ...]) -> str:
    """The way to a dict within a dict, for a message."""
    return " / ".join(f"{key[:60]!r}" for key in keys)


def _truncated(name: str, evidence: str) -> WeightsTruncated:
    return WeightsTruncated(
        f"{name} is cut off.", evidence=f"{name}: {evidence}.", fix="Copy the file from the model's source again."
    )
