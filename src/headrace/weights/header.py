"""The header of a safetensors file: which tensors lie where in it. Its bytes are the input of an attacker.

A file is an 8-byte little-endian length, a JSON object of that length, then the tensors' bytes without a gap
(``huggingface/safetensors``, "Format"). Nothing is allocated on the header's word: what is read was checked against
the file's length first, and numbers out of it are compared, never used as sizes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Annotated

import msgspec

from headrace.resources.errors import HeadraceError, WeightsCorrupt, WeightsTruncated
from headrace.weights.beginnings import BEGINNING_BYTES, not_weights
from headrace.weights.reader import FolderReader, ReadOnce, read_once

MAX_HEADER_BYTES = 100_000_000
"""The longest header that the reference implementation reads (``MAX_HEADER_SIZE`` in its ``tensor.rs``)."""

MAX_DIMENSIONS = 64
"""More than any framework allows; it bounds the work that one tensor's shape can cause."""

MAX_TENSORS = 200_000
"""The most tensors of a folder; DeepSeek V3 has 91,991. Each takes about a kilobyte for as long as it is looked at, and
600,000 empty ones ten seconds of the checks that walk them."""

MAX_QUOTES = 12 * MAX_TENSORS
"""The most quotation marks of a header: a tensor has ten, and what is left is for the writer's notes. A hundred
megabytes of short keys would be nine million objects, of which none is a tensor."""

BITS_BY_DTYPE = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""The element sizes of the format (``Dtype::bitsize`` in the reference implementation)."""

READS_AT_ONCE = 16
"""Headers of a store under way together: of 241 files with 50 ms for each of two reads, 1.5 s instead of 24."""

_Length = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class TensorEntry(msgspec.Struct, frozen=True):
    """One tensor of a file.

    Attributes:
        name: Its name in the model.
        dtype: One of `BITS_BY_DTYPE`.
        shape: Its dimensions; empty for a scalar.
        size_bytes: What it takes in the file.
        file: The file that holds it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    file: str

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count


class SafetensorsHeader(msgspec.Struct, frozen=True):
    """What a file's header says, once it agrees with the file's length.

    Attributes:
        file: The file's name.
        tensors: Its tensors in the order in which they lie.
        metadata: The writer's notes, such as ``{"format": "pt"}``.
        header_bytes: Length of the JSON.
    """

    file: str
    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, str]
    header_bytes: int


class _Described(msgspec.Struct, frozen=True):
    dtype: str
    shape: Annotated[tuple[_Length, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)]
    data_offsets: tuple[_Length, _Length]


def read_header(reader: FolderReader, name: str) -> SafetensorsHeader:
    """Read and check one file's header.

    Raises:
        WeightsTruncated: The file ends before what its header promises.
        WeightsCorrupt: The header is not one that a writer of the format wrote.
    """
    kept = read_once(reader)
    return kept.once("header", name, lambda: _read_header(kept, name))


def read_ahead(reader: FolderReader, names: Sequence[str]) -> None:
    """Have headers read, many at once, if they lie in a store; faults are left to whoever asks for the header."""
    kept = read_once(reader)
    if not kept.far or len(names) < 2:
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # what is here starts without it

    def read(name: str) -> None:
        with contextlib.suppress(HeadraceError):
            read_header(kept, name)

    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="headers") as threads:
        list(threads.map(read, names))


def _read_header(reader: ReadOnce, name: str) -> SafetensorsHeader:
    file_bytes = reader.sizes()[name]
    header_bytes = _header_length(reader, name, file_bytes)
    content = reader.read_range(name, 8, header_bytes)
    if len(content) != header_bytes:
        raise _truncated(name, f"its header has {header_bytes:,} bytes, and {len(content):,} could be read")
    _require_few(reader, name, content.count(b'"data_offsets"'))  # before anything is made of them
    if (quotes := content.count(b'"')) > MAX_QUOTES:
        raise _corrupt(
            name, f"its header has {quotes // 2:,} names and texts, more than those of {MAX_TENSORS:,} tensors"
        )
    metadata, described = _decode(name, content)
    _require_few(reader, name, len(described))
    reader.tensors += len(described)
    tensors = _lay_out(name, described, file_bytes - 8 - header_bytes)
    return SafetensorsHeader(file=name, tensors=tensors, metadata=metadata, header_bytes=header_bytes)


def _require_few(reader: ReadOnce, name: str, more: int) -> None:
    """Hold that a folder's tensors, with so many more of a file, are no more than are looked at."""
    if reader.tensors + more > MAX_TENSORS:
        raise WeightsCorrupt(
            "The weights have more tensors than any model that is known.",
            evidence=f"{name}: {more:,} tensors in its header, after {reader.tensors:,} of other files; at most "
            f"{MAX_TENSORS:,} are looked at.",
            fix="Copy the files from the model's source again, or save it again from the framework that wrote it.",
        )


def _header_length(reader: FolderReader, name: str, file_bytes: int) -> int:
    prefix = reader.read_range(name, 0, 8)
    if len(prefix) < 8:
        raise _truncated(name, f"it has {file_bytes:,} bytes, and the length of its header alone takes 8")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        beginning = reader.read_range(name, 0, min(BEGINNING_BYTES, file_bytes))
        if other := not_weights(name, beginning, file_bytes):
            raise other
        raise _corrupt(name, f"its first 8 bytes, {prefix.hex()}, announce a header of {length:,} bytes", limit=True)
    if 8 + length > file_bytes:
        raise _truncated(name, f"its header ends at byte {8 + length:,}, and the file at byte {file_bytes:,}")
    return length


def _decode(name: str, content: bytes) -> tuple[dict[str, str], dict[str, _Described]]:
    try:
        fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(fields.pop("__metadata__", b"{}"), type=dict[str, str] | None)
        # `copy` cuts each piece loose from the header, which would live on behind it otherwise.
        described = {tensor: msgspec.json.decode(piece, type=_Described) for tensor, piece in fields.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _corrupt(name, f"its header of {len(content):,} bytes cannot be read: {_brief(str(error))}") from error
    return metadata or {}, described


def _lay_out(name: str, described: dict[str, _Described], data_bytes: int) -> tuple[TensorEntry, ...]:
    entries: list[TensorEntry] = []
    ordered = sorted(described.items(), key=lambda item: (item[1].data_offsets, item[0]))
    reached = 0
    for tensor, description in ordered:
        start, end = description.data_offsets
        if start > end:
            raise _corrupt(name, f"{_brief(tensor)} ends at {end:,}, before it begins at {start:,}")
        if start != reached:
            what = (
                "overlaps what lies before it, which ends" if start < reached else "leaves a gap: the data so far ends"
            )
            raise _corrupt(name, f"{_brief(tensor)} begins at {start:,} and {what} at {reached:,}")
        if (needed := _size_bytes(name, tensor, description)) != end - start:
            raise _corrupt(
                name,
                f"{_brief(tensor)}, {description.dtype} {list(description.shape)}, takes {needed:,} bytes and its "
                f"offsets give it {end - start:,}",
            )
        reached = end
        entries.append(TensorEntry(tensor, description.dtype, description.shape, needed, name))
    if reached > data_bytes:
        last = next(entry for entry, ends in _ends(entries) if ends > data_bytes)
        raise _truncated(
            name,
            f"its tensors take {reached:,} bytes and {data_bytes:,} are there ({reached - data_bytes:,} are missing); "
            f"the first that is cut is {_brief(last.name)}",
        )
    if reached < data_bytes:
        raise _corrupt(name, f"{data_bytes - reached:,} bytes follow its last tensor, which no tensor owns")
    return tuple(entries)


def _ends(entries: list[TensorEntry]) -> list[tuple[TensorEntry, int]]:
    return list(zip(entries, itertools.accumulate(entry.size_bytes for entry in entries), strict=True))


def _size_bytes(name: str, tensor: str, description: _Described) -> int:
    bits = BITS_BY_DTYPE.get(description.dtype)
    if bits is None:
        raise _corrupt(name, f"{_brief(tensor)} has the unknown element type {_brief(description.dtype)}")
    for dimension in description.shape:
        bits *= dimension
        if bits > 2**70:  # far beyond any file; stops here so that the product stays a small number
            raise _corrupt(name, f"{_brief(tensor)} has more elements than a file can hold")
    if bits % 8:
        raise _corrupt(name, f"{_brief(tensor)} does not end on a whole byte")
    return bits // 8


def _truncated(name: str, evidence: str) -> WeightsTruncated:
    return WeightsTruncated(
        f"{name} is cut off.", evidence=f"{name}: {evidence}.", fix="Copy the file from the model's source again."
    )


def _corrupt(name: str, evidence: str, *, limit: bool = False) -> WeightsCorrupt:
    return WeightsCorrupt(
        f"{name} is not a valid safetensors file.",
        evidence=f"{name}: {evidence}" + (f"; at most {MAX_HEADER_BYTES:,} are read." if limit else "."),
        fix="Copy the file from the model's source again, or save it again from the framework that wrote it.",
    )


def _brief(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
