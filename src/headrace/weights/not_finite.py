"""Numbers that are none: a sample of each tensor is looked through for NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from headrace.resources.errors import TensorNotFinite
from headrace.weights.conversion.tensors import StoredTensor, from_header, from_pickle
from headrace.weights.finding import Finding, attempt, finding_of
from headrace.weights.header import SafetensorsHeader
from headrace.weights.pickles import PickledFile, read_places
from headrace.weights.reader import FolderReader

SAMPLE_BYTES = 4096
"""What is read of one tensor: its beginning. A training that went wrong leaves NaN everywhere."""

SAMPLE_TENSORS = 512
"""How many tensors are read, evenly over all of them: at most 2 MiB in all."""

_EXPONENTS = {"F16": (2, 0x7C00), "BF16": (2, 0x7F80), "F32": (4, 0x7F800000), "F64": (8, 0x7FF << 52)}
"""Bytes of each element, and the bits that are all set in NaN and infinity alone (IEEE 754)."""


def not_finite_findings(
    reader: FolderReader, headers: Sequence[SafetensorsHeader], pickles: Sequence[PickledFile] = ()
) -> Iterator[Finding]:
    """Read the beginnings of tensors and name those with NaN or infinity in them."""
    spots = [spot for header in headers for spot in _spots(from_header(header))]
    spots += [spot for file in pickles for spot in _spots(_of_pickle(reader, file.file))]
    step = max(1, -(-len(spots) // SAMPLE_TENSORS))
    bad: list[tuple[str, str]] = []
    for tensor in spots[::step]:
        length = min(SAMPLE_BYTES, tensor.size_bytes)
        if count := _not_finite(reader.read_range(tensor.file, tensor.begins_at, length), tensor.dtype):
            bad.append(
                (tensor.file, f"{tensor.name[:120]}: {count} of its first {length // _width(tensor.dtype)} numbers")
            )
    if bad:
        error = TensorNotFinite(
            f"{len(bad)} of the {len(spots[::step])} tensors that were sampled hold NaN or infinity.",
            evidence="; ".join(text for _, text in bad[:3]) + ("; …" if len(bad) > 3 else "."),
            fix="Take an earlier checkpoint, or copy the file again and compare checksums.",
        )
        yield finding_of(error, bad[0][0])


def _of_pickle(reader: FolderReader, name: str) -> list[StoredTensor]:
    """Where a pickle's tensors begin; none of one whose numbers lie otherwise than ``torch.save`` puts them."""
    found: list[Finding] = []
    return from_pickle(name, attempt(partial(read_places, reader, name), name, found) or ())


def _spots(tensors: Sequence[StoredTensor]) -> Iterator[StoredTensor]:
    """Those whose numbers, and nobody else's, lie behind their first one."""
    for tensor in tensors:
        if tensor.dtype in _EXPONENTS and tensor.elements and tensor.strides is None:
            yield tensor


def _width(dtype: str) -> int:
    return _EXPONENTS[dtype][0]


def _not_finite(content: bytes, dtype: str) -> int:
    width, mask = _width(dtype), _EXPONENTS[dtype][1]
    numbers = (int.from_bytes(content[at : at + width], "little") for at in range(0, len(content) - width + 1, width))
    return sum(number & mask == mask for number in numbers)
