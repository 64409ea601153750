"""A checkpoint's tensors by name, mapped from its safetensors files: nothing is read before it is used."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace_engines.serving.fatal import FatalError

_NUMPY_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
"""Element types that weights are converted from. NumPy has no bfloat16: its words stand for it."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it lies in its file.

    Attributes:
        dtype: ``F32``, ``F16`` or ``BF16``.
        values: Its numbers, read-only; of BF16 the 16-bit words.
    """

    name: str
    dtype: str
    values: np.ndarray[Any, Any]

    @property
    def bits(self) -> int:
        """Of one number."""
        return self.values.itemsize * 8

    def as_float32(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A copy in float32, which holds every number of the three types exactly."""
        if self.dtype == "BF16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values.astype(np.float32)


def open_checkpoint(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder's safetensors files.

    Raises:
        FatalError: ``CONVERSION_FAILED``: there are none, or their elements are neither F32, F16 nor BF16.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in _files(folder):
        tensors |= {tensor.name: tensor for tensor in _tensors(path)}
    return tensors


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    files = [folder / "model.safetensors"]
    if not files[0].exists():
        raise FatalError("CONVERSION_FAILED", "The folder has no model.safetensors and no index of parts.")
    return files


def _tensors(path: Path) -> Iterator[StoredTensor]:
    # Headers were checked against the files' lengths when the model was (headrace.weights); here they are believed.
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        described = json.loads(file.read(header_bytes))
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[8 + header_bytes :]
    for name, entry in described.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _NUMPY_TYPES:
            raise FatalError(
                "CONVERSION_FAILED",
                "The checkpoint holds tensors that are not floating-point weights.",
                evidence=f"{name} in {path.name} has the element type {entry['dtype']}.",
            )
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], _NUMPY_TYPES[entry["dtype"]]).reshape(entry["shape"])
        yield StoredTensor(name, entry["dtype"], values)
