"""One GGUF file in, one Hugging Face folder out, beside its final name first; the same bytes every time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.resources.errors import ConversionFailed, DiskFull
from headrace.weights.bfloat16 import to_bfloat16
from headrace.weights.gguf import llama
from headrace.weights.gguf.shards import write_shards
from headrace.weights.gguf.source import GgufSource, open_gguf
from headrace.weights.gguf.tokenizer import tokenizer_config_json, tokenizer_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CONVERTER_VERSION = 1
"""Raised whenever the same file would come out with other bytes, so that a kept folder can be known to be old."""

Progress = Callable[[int, int], None]
"""Called with the tensors' bytes done and in all."""


def convert_gguf(source: Path, destination: Path, progress: Progress = lambda _done, _total: None) -> Path:
    """Write the model in a GGUF file to a folder that transformers and vLLM load.

    The weights are dequantised and rounded to bfloat16: the numbers that llama.cpp computes with, not those of the
    checkpoint that the file was made from.

    Args:
        source: The file.
        destination: The new folder.
        progress: Told how far it is.

    Raises:
        ArtifactsNotFound: There is no such file.
        ConversionFailed: It cannot be converted faithfully; or ``destination`` exists.
        DiskFull: There is no room; nothing is left behind.
        WeightsCorrupt: It is not a whole GGUF file, or holds numbers that are not finite.
    """
    if destination.exists():
        raise ConversionFailed(f"{destination} exists.", fix="Remove it, or name another folder.")
    opened = open_gguf(source)
    llama.require_convertible(opened)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _require_room(opened, destination.parent)
    beside = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        beside.chmod(0o755)
        write_gguf(opened, beside, progress)
        for file in beside.iterdir():
            _make_durable(file)
        _make_durable(beside)
        beside.rename(destination)
        _make_durable(destination.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return destination


def write_gguf(source: GgufSource, target: Path, progress: Progress = lambda _done, _total: None) -> None:
    """The same into an empty folder, of a file that `llama.require_convertible` takes."""
    _write_json(target / "config.json", llama.config_json(source))
    _write_json(target / "generation_config.json", llama.special_token_ids(source))
    _write_json(target / "tokenizer.json", tokenizer_json(source))
    _write_json(target / "tokenizer_config.json", tokenizer_config_json(source))
    write_shards(target, _tensors(source, progress))


def needed_bytes(source: GgufSource) -> int:
    """About what the folder takes: two bytes for each number, and a quarter of a gigabyte for the rest.

    That is the tokenizer, and the file system's own needs.
    """
    return 2 * sum(int(tensor.n_elements) for tensor in source.tensors) + 256 * 1024**2


def _tensors(source: GgufSource, progress: Progress) -> Iterator[tuple[str, npt.NDArray[np.uint16]]]:
    total_bytes = sum(int(tensor.n_bytes) for tensor in source.tensors)
    done_bytes = 0
    for tensor in source.tensors:
        name = llama.hf_name(tensor.name)
        assert name is not None, "require_convertible has refused files with such tensors"
        yield name, to_bfloat16(llama.restore_rows(source, tensor.name, _dequantised(source, tensor)))
        done_bytes += int(tensor.n_bytes)
        progress(done_bytes, total_bytes)


def _dequantised(source: GgufSource, tensor: Any) -> npt.NDArray[np.float32]:
    import numpy as np  # noqa: PLC0415  # see source.py
    from gguf.quants import dequantize  # noqa: PLC0415

    try:
        values: npt.NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise source.refuse("it is quantised in a way that cannot be undone here", str(error)) from error
    if not np.isfinite(values).all():
        raise source.refuse("it holds numbers that are not finite", f"The tensor {tensor.name} has NaN or infinity.")
    return values.reshape([int(length) for length in reversed(tensor.shape)])


def _require_room(source: GgufSource, folder: Path) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes(source):
        raise DiskFull(
            f"The disk at {folder} has no room for the converted weights.",
            evidence=f"They need {needed_bytes(source):,} bytes; {free_bytes:,} are free.",
            fix="Make room, or convert to a larger disk.",
        )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
