"""Where in the file each tensor's numbers begin, so that they can be copied without anybody loading the pickle."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.resources.errors import ConversionFailed
from headrace.weights.pickles.archive import Archive, Record
from headrace.weights.pickles.checkpoint import Content, Legacy, read_content
from headrace.weights.pickles.symbols import ITEM_BYTES, Opaque, Tensor
from headrace.weights.reader import FolderReader

_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""What stands before a record in a zip (APPNOTE 4.3.7): a signature, and the lengths of a name and an extra field."""


class PlacedTensor(msgspec.Struct, frozen=True):
    """A tensor and where it is.

    Attributes:
        name: Its name in the model.
        tensor: The view of its storage.
        storage_at: The byte of the file where that storage begins.
    """

    name: str
    tensor: Tensor
    storage_at: int


def read_places(reader: FolderReader, name: str) -> list[PlacedTensor]:
    """Every tensor of a file; raises as `require_placeable`."""
    content = require_placeable(reader, name)
    if isinstance(content.place, Archive):
        starts = _starts_in_zip(reader, name, content.place, content.tensors)
    else:
        starts = _starts_in_legacy(reader, name, content.place)
    return [PlacedTensor(key, tensor, starts[tensor.storage.key]) for key, tensor in content.tensors.items()]


def require_placeable(reader: FolderReader, name: str) -> Content:
    """What a file says, if its numbers can be copied as they are; they are not looked for yet.

    Raises:
        ConversionFailed: It holds what a folder of safetensors has no place for, or keeps its numbers in another form
            than ``torch.save`` does on a machine of today.
        HeadraceError: As `read_content`.
    """
    content = read_content(reader, name)
    for key, value in content.state.items():
        if problem := _unplaceable(value):
            raise _refused(name, f"{str(key)[:120]} is {problem}")
    if isinstance(content.place, Archive):
        _require_plain_zip(reader, name, content.place, content.tensors)
    elif not content.place.little_endian:
        raise _refused(name, "its numbers were written on a big-endian machine")
    return content


def _unplaceable(value: Any) -> str:
    """What a value is that would be lost; empty for tensors, and for what is no weight (numbers, names, nothing)."""
    if isinstance(value, Tensor):
        if value.altered:
            return "a tensor that shows its numbers negated or conjugated"
        return f"of the type {value.dtype}, which safetensors does not have" if value.dtype == "C128" else ""
    if isinstance(value, Opaque):
        return "no dense tensor"
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return "a collection of tensors" if any(isinstance(each, (Tensor, Opaque)) for each in inside) else ""


def _require_plain_zip(reader: FolderReader, name: str, archive: Archive, tensors: Mapping[str, Tensor]) -> None:
    if any(archive.records[tensor.storage.key].packed for tensor in tensors.values()):
        raise _refused(name, "its zip is compressed, which torch.save never does")
    order = archive.byte_order
    if order is not None:
        at = _numbers_at(reader, name, order)
        if (said := reader.read_range(name, at, min(order.size_bytes, 16))) != b"little":
            raise _refused(name, f"its numbers are in the byte order {said!r}")


def _starts_in_zip(reader: FolderReader, name: str, archive: Archive, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    starts: dict[str, int] = {}
    for tensor in tensors.values():
        key = tensor.storage.key
        if key not in starts:
            starts[key] = _numbers_at(reader, name, archive.records[key])
    return starts


def _numbers_at(reader: FolderReader, name: str, record: Record) -> int:
    """Where a record's bytes begin: behind its header, whose own lengths need not be those of the zip's list."""
    header = reader.read_range(name, record.header_at, _LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise _refused(name, f"no record begins at byte {record.header_at:,} of its zip, where its list says")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    at = record.header_at + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if record.packed:
        raise _refused(name, "its zip is compressed, which torch.save never does")
    if at + record.size_bytes > reader.sizes()[name]:
        raise _refused(name, f"a record of its zip ends at byte {at + record.size_bytes:,}, beyond the file")
    return int(at)


def _starts_in_legacy(reader: FolderReader, name: str, place: Legacy) -> dict[str, int]:
    starts: dict[str, int] = {}
    at = place.data_at
    for storage in place.storages:
        said = int.from_bytes(reader.read_range(name, at, 8), "little")
        if said != storage.elements:
            raise _refused(name, f"the storage at byte {at:,} has {said:,} numbers, and its pickle says another number")
        starts[storage.key] = at + 8
        at += 8 + storage.elements * ITEM_BYTES.get(storage.dtype, 1)
    return starts


def _refused(name: str, evidence: str) -> ConversionFailed:
    return ConversionFailed(
        f"{name} cannot be converted to safetensors without loss.",
        evidence=f"{name}: {evidence}.",
        fix="Save the model with transformers' save_pretrained where it was made, and import that.",
    )
