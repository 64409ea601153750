"""Write bfloat16 tensors into safetensors files of bounded size, so that memory is bounded too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace.weights.folder import INDEX_FILE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHARD_BYTES = 2 * 1024**3
"""At which size a file is closed and the next begun: what a conversion holds in memory at most, one tensor more."""


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, npt.NDArray[np.uint16]]], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write tensors of bfloat16 words, in the order given, as ``model.safetensors`` or numbered parts with an index."""
    parts: list[list[str]] = []
    pending: dict[str, npt.NDArray[np.uint16]] = {}
    total_bytes = pending_bytes = 0
    for name, words in tensors:
        if pending and pending_bytes + words.nbytes > shard_bytes:
            parts.append(_write_part(folder, len(parts), pending))
            pending, pending_bytes = {}, 0
        pending[name] = words
        pending_bytes += words.nbytes
        total_bytes += words.nbytes
    parts.append(_write_part(folder, len(parts), pending))
    if len(parts) == 1:
        _part(folder, 0).rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(parts):
        file = f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors"
        _part(folder, number).rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(index)))


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number}"  # its name says how many there are, which is known at the end


def _write_part(folder: Path, number: int, tensors: dict[str, npt.NDArray[np.uint16]]) -> list[str]:
    from safetensors import TensorSpec, serialize_file  # noqa: PLC0415  # see source.py

    specs = {
        name: TensorSpec(dtype="bfloat16", shape=words.shape, data_ptr=words.ctypes.data, data_len=words.nbytes)
        for name, words in tensors.items()
    }
    # One key: the library keeps metadata in a hash map, whose order would differ from run to run with two.
    serialize_file(specs, _part(folder, number), metadata={"format": "pt"})
    _part(folder, number).chmod(0o644)  # the library makes files that only their owner reads
    return list(tensors)
