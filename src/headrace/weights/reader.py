"""The little that this room needs from wherever a folder lies: a listing, and bytes out of the middle of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from headrace.resources.errors import HeadraceError


class FolderReader(Protocol):
    """A model folder, here or far away. `headrace.storage.Artifacts` is one."""

    def sizes(self) -> Mapping[str, int]:
        """The length in bytes of every file, by its path below the folder."""
        ...

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Up to ``length`` bytes of a file from ``start``; fewer only where the file ends."""
        ...


SMALL_FILE_BYTES = 64 * 1024 * 1024
"""The longest JSON file that is read whole. The largest real one, a tokenizer of 262,144 tokens, has 33 MB; the index
of a checkpoint with 100,000 tensors about 10 MB."""


def read_json_object(reader: FolderReader, name: str, error: type[HeadraceError]) -> dict[str, Any]:
    """A small JSON file that holds an object.

    Raises:
        HeadraceError: Of the class ``error``: it is too long, not UTF-8, not JSON, or not an object.
    """
    size_bytes = reader.sizes()[name]
    if size_bytes > SMALL_FILE_BYTES:
        raise error(f"{name} is too long.", evidence=f"{size_bytes:,} bytes; at most {SMALL_FILE_BYTES:,} are read.")
    content = reader.read_range(name, 0, size_bytes)
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        raise error(
            f"{name} is not a JSON object.",
            evidence=f"{problem} ({size_bytes:,} bytes)",
            fix=f"Copy {name} from the model's source again.",
        ) from problem
