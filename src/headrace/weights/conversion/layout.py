"""Which tensor goes into which file and where, by a fixed rule: the same tensors always give the same bytes.

Tensors are put into files in the order of their names, numbers in them counted as numbers, so that a layer stays
together. A file ends before the tensor that would take it beyond `SHARD_BYTES`. Within a file they lie as the
safetensors library lays them out, which one file's bytes are held against in tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace.weights.conversion.tensors import StoredTensor
from headrace.weights.header import BITS_BY_DTYPE

SHARD_BYTES = 5_000_000_000
"""As transformers' ``save_pretrained`` cut its files up to version 4."""

_DTYPE_ORDER = (
    "U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "F8_E5M2FNUZ", "F8_E4M3FNUZ",
    "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "F6_E3M2", "F6_E2M3", "F4", "BOOL",
)  # fmt: skip
"""The wide ones first, so that each tensor is aligned: ``Dtype`` of the safetensors library from its end."""


class PlannedTensor(msgspec.Struct, frozen=True):
    """A tensor that is to be written.

    Attributes:
        source: Where its numbers come from.
        dtype: What they are written as.
    """

    source: StoredTensor
    dtype: str

    @property
    def size_bytes(self) -> int:
        """What it will take."""
        return self.source.elements * BITS_BY_DTYPE[self.dtype] // 8


class PlannedFile(msgspec.Struct, frozen=True):
    """A file that is to be written; its tensors in the order in which they will lie."""

    name: str
    tensors: tuple[PlannedTensor, ...]

    @property
    def size_bytes(self) -> int:
        """Length of the tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    def header(self) -> bytes:
        """Everything that stands before the tensors."""
        fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for tensor in self.tensors:
            end = at + tensor.size_bytes
            fields[tensor.source.name] = {
                "dtype": tensor.dtype,
                "shape": tensor.source.shape,
                "data_offsets": (at, end),
            }
            at = end
        content = msgspec.json.encode(fields)
        content += b" " * (-len(content) % 8)
        return len(content).to_bytes(8, "little") + content


def lay_out(tensors: Iterable[PlannedTensor], shard_bytes: int = SHARD_BYTES) -> tuple[PlannedFile, ...]:
    """The files of a model, in order."""
    shards: list[list[PlannedTensor]] = [[]]
    filled_bytes = 0
    for tensor in sorted(tensors, key=lambda tensor: _by_name(tensor.source.name)):
        if shards[-1] and filled_bytes + tensor.size_bytes > shard_bytes:
            shards.append([])
            filled_bytes = 0
        shards[-1].append(tensor)
        filled_bytes += tensor.size_bytes
    if len(shards) == 1:
        return (PlannedFile("model.safetensors", _in_file(shards[0])),)
    return tuple(
        PlannedFile(f"model-{number:05d}-of-{len(shards):05d}.safetensors", _in_file(shard))
        for number, shard in enumerate(shards, 1)
    )


def index(files: Sequence[PlannedFile]) -> bytes:
    """The content of the index of several files."""
    weight_map = {tensor.source.name: file.name for file in files for tensor in file.tensors}
    total_bytes = sum(file.size_bytes for file in files)
    content = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _by_name(name: str) -> tuple[tuple[bool, int, str], ...]:
    parts = ((part.isascii() and part.isdigit() and len(part) < 10, part) for part in name.split("."))
    return tuple((not number, int(part) if number else 0, part) for number, part in parts)


def _in_file(tensors: Sequence[PlannedTensor]) -> tuple[PlannedTensor, ...]:
    return tuple(sorted(tensors, key=lambda tensor: (_DTYPE_ORDER.index(tensor.dtype), tensor.source.name)))
