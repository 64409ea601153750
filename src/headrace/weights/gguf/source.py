"""A GGUF file opened for conversion: its metadata as plain values, its tensors on demand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.resources.errors import ArtifactsNotFound, ConversionFailed, WeightsCorrupt

if TYPE_CHECKING:
    from gguf import ReaderTensor


class GgufSource(msgspec.Struct, frozen=True):
    """What a file holds.

    Attributes:
        name: The file's name, for messages.
        metadata: Its keys and values, under llama.cpp's names.
        tensors: Its tensors, memory-mapped, in the order in which they lie.
    """

    name: str
    metadata: dict[str, Any]
    tensors: list[ReaderTensor]

    @property
    def architecture(self) -> str:
        """The family, such as ``llama``."""
        return str(self.require("general.architecture"))

    def require(self, key: str) -> Any:
        """The value of a key that every file of this kind has.

        Raises:
            ConversionFailed: It is not there.
        """
        if key not in self.metadata:
            raise ConversionFailed(f"{self.name} lacks the key {key}.", fix="Download the file again.")
        return self.metadata[key]

    def refuse(self, reason: str, evidence: str) -> ConversionFailed:
        """The error of a file that is sound and cannot be converted faithfully."""
        return ConversionFailed(
            f"{self.name} cannot be converted: {reason}.",
            evidence=evidence,
            fix="Import the Hugging Face checkpoint that it was made from.",
        )


def open_gguf(path: Path) -> GgufSource:
    """Open a file.

    Raises:
        ArtifactsNotFound: It is not there.
        WeightsCorrupt: It is not a whole GGUF file.
    """
    from headrace.weights.gguf.bounded import BoundedReader  # noqa: PLC0415  # brings NumPy, which others go without

    if not path.is_file():
        raise ArtifactsNotFound(f"There is no file {path}.")
    try:
        reader = BoundedReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError, struct.error, MemoryError, OSError) as error:
        raise WeightsCorrupt(
            f"{path.name} is not a whole GGUF file.",
            evidence=f"{error} (the file has {path.stat().st_size:,} bytes)",
            fix="Download the file again.",
        ) from error
    source = GgufSource(name=path.name, metadata=metadata, tensors=list(reader.tensors))
    if reader.byte_order == "S":
        raise source.refuse("it is a big-endian file", "Its version field is byte-swapped.")
    if metadata.get("split.count", 0) > 1:
        raise source.refuse("it is one part of several", f"split.count is {metadata['split.count']}.")
    return source
