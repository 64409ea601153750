"""Tensors as they lie in a folder's files, whatever wrote those."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from headrace.weights.header import BITS_BY_DTYPE, SafetensorsHeader
from headrace.weights.pickles import PlacedTensor
from headrace.weights.pickles.symbols import ITEM_BYTES


class StoredTensor(msgspec.Struct, frozen=True):
    """One tensor and where its numbers are.

    Attributes:
        name: Its name in the model.
        dtype: As safetensors calls it.
        shape: Its dimensions.
        strides: Elements between neighbours of each dimension; None where they lie one after another.
        file: The file.
        begins_at: The byte of the file where its first number is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    file: str
    begins_at: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """What it takes where it lies one number after another."""
        return self.elements * BITS_BY_DTYPE[self.dtype] // 8

    @property
    def place(self) -> tuple[object, ...]:
        """The same for tensors that are one: names for the same numbers, seen in the same way."""
        return self.file, self.begins_at, self.dtype, self.shape, self.strides


def from_header(header: SafetensorsHeader) -> list[StoredTensor]:
    """The tensors of a safetensors file, which lie one behind the other."""
    tensors: list[StoredTensor] = []
    at = 8 + header.header_bytes
    for entry in header.tensors:
        tensors.append(StoredTensor(entry.name, entry.dtype, entry.shape, None, header.file, at))
        at += entry.size_bytes
    return tensors


def from_pickle(file: str, placed: Sequence[PlacedTensor]) -> list[StoredTensor]:
    """The tensors of a file of ``torch.save``: views of storages."""
    return [
        StoredTensor(
            name=each.name,
            dtype=each.tensor.dtype,
            shape=each.tensor.shape,
            strides=None if is_contiguous(each.tensor.shape, each.tensor.strides) else each.tensor.strides,
            file=file,
            begins_at=each.storage_at + each.tensor.offset * ITEM_BYTES[each.tensor.dtype],
        )
        for each in placed
    ]


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether numbers lie one after another, the last dimension's closest; a dimension of one is anywhere."""
    if 0 in shape:
        return True
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True
