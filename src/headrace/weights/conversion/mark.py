"""What a converted folder says about itself, so that nobody takes its numbers for the publisher's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from headrace.weights.reader import FolderReader

CONVERTER_VERSION = 2
"""Raised whenever the same folder would come out with other bytes, so that a kept one can be known to be old."""

MARK_FILE = "headrace-conversion.json"

Wanted = Literal["own", "bfloat16"]
"""The numbers' format: that of the checkpoint, or bfloat16."""

_LONGEST_BYTES = 64 * 1024


class Mark(msgspec.Struct, frozen=True):
    """What was made; written into the folder as `MARK_FILE`.

    Attributes:
        made: What was made, and from what.
        dtype: The numbers' format: ``own`` is that of the source, bit for bit.
        dequantised: The numbers were computed back from quantised ones: not those of the model's own checkpoint.
        converter_version: `CONVERTER_VERSION`.
    """

    made: str
    dtype: Wanted = "own"
    dequantised: bool = False
    converter_version: int = CONVERTER_VERSION


def read_mark(reader: FolderReader) -> Mark | None:
    """What a folder says that it was made of; None of one that no conversion wrote."""
    if MARK_FILE not in reader.sizes():
        return None
    try:
        return msgspec.json.decode(reader.read_range(MARK_FILE, 0, _LONGEST_BYTES), type=Mark)
    except msgspec.DecodeError:
        return None


def write_mark(target: Path, mark: Mark) -> None:
    """Say in the folder what was made of what."""
    (target / MARK_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(mark), indent=2) + b"\n")
