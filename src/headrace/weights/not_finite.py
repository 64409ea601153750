"""Numbers that are none: a sample of each tensor is looked through for NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.resources.errors import TensorNotFinite
from headrace.weights.finding import Finding, finding_of
from headrace.weights.header import SafetensorsHeader
from headrace.weights.reader import FolderReader

SAMPLE_BYTES = 4096
"""What is read of one tensor: its beginning. A training that went wrong leaves NaN everywhere."""

SAMPLE_TENSORS = 512
"""How many tensors are read, evenly over all of them: at most 2 MiB in all."""

_EXPONENTS = {"F16": (2, 0x7C00), "BF16": (2, 0x7F80), "F32": (4, 0x7F800000), "F64": (8, 0x7FF << 52)}
"""Bytes of each element, and the bits that are all set in NaN and infinity alone (IEEE 754)."""


def not_finite_findings(reader: FolderReader, headers: Sequence[SafetensorsHeader]) -> Iterator[Finding]:
    """Read the beginnings of tensors and name those with NaN or infinity in them."""
    spots = [spot for header in headers for spot in _spots(header)]
    step = max(1, -(-len(spots) // SAMPLE_TENSORS))
    bad: list[tuple[str, str]] = []
    for file, name, dtype, start, length in spots[::step]:
        if count := _not_finite(reader.read_range(file, start, length), dtype):
            bad.append((file, f"{name[:120]}: {count} of its first {length // _width(dtype)} numbers"))
    if bad:
        error = TensorNotFinite(
            f"{len(bad)} of the {len(spots[::step])} tensors that were sampled hold NaN or infinity.",
            evidence="; ".join(text for _, text in bad[:3]) + ("; …" if len(bad) > 3 else "."),
            fix="Take an earlier checkpoint, or copy the file again and compare checksums.",
        )
        yield finding_of(error, bad[0][0])


def _spots(header: SafetensorsHeader) -> Iterator[tuple[str, str, str, int, int]]:
    start = 8 + header.header_bytes
    for entry in header.tensors:
        if entry.dtype in _EXPONENTS and entry.size_bytes:
            yield header.file, entry.name, entry.dtype, start, min(SAMPLE_BYTES, entry.size_bytes)
        start += entry.size_bytes


def _width(dtype: str) -> int:
    return _EXPONENTS[dtype][0]


def _not_finite(content: bytes, dtype: str) -> int:
    width, mask = _width(dtype), _EXPONENTS[dtype][1]
    numbers = (int.from_bytes(content[at : at + width], "little") for at in range(0, len(content) - width + 1, width))
    return sum(number & mask == mask for number in numbers)
