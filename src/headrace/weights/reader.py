"""The little that this room needs from wherever a folder lies: a listing, and bytes out of the middle of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from headrace.resources.errors import HeadraceError
from headrace.weights.beginnings import instead_of

T = TypeVar("T")


class FolderReader(Protocol):
    """A model folder, here or far away. `headrace.storage.Artifacts` is one."""

    def sizes(self) -> Mapping[str, int]:
        """The length in bytes of every file, by its path below the folder."""
        ...

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Up to ``length`` bytes of a file from ``start``; fewer only where the file ends."""
        ...


class ReadOnce:
    """A folder of which what is costly to read is kept: the index and the headers of a large checkpoint have megabytes.

    Several checks ask for them, one after the other. For as long as a folder is looked at, not longer: it may change.

    Args:
        reader: The folder.

    Attributes:
        tensors: How many are in the headers that were read.
    """

    def __init__(self, reader: FolderReader) -> None:
        self._reader = reader
        self._kept: dict[tuple[str, str], Any] = {}
        self.tensors = 0

    @property
    def far(self) -> bool:
        """It lies in a store, where each read is a round trip."""
        return "://" in self.address and not self.address.lower().startswith("file://")

    @property
    def address(self) -> str:
        """Where the folder lies, for a command that a person runs; ``FOLDER`` where its reader does not know."""
        return str(getattr(self._reader, "address", "FOLDER"))

    def sizes(self) -> Mapping[str, int]:
        """As `FolderReader.sizes`."""
        return self._reader.sizes()

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """As `FolderReader.read_range`; of a store, files that are read whole are kept: they are the small ones."""
        if self.far and start == 0 and length >= self.sizes().get(name, length + 1):
            return self.once("file", name, lambda: self._reader.read_range(name, start, length))
        return self._reader.read_range(name, start, length)

    def once(self, what: str, name: str, read: Callable[[], T]) -> T:
        """What ``read`` gives, which is asked only once for each kind of thing and file. An error is not kept."""
        if (what, name) not in self._kept:
            self._kept[what, name] = read()
        kept: T = self._kept[what, name]
        return kept


def read_once(reader: FolderReader) -> ReadOnce:
    """The folder as one that keeps what was read of it; the same, if it does already."""
    return reader if isinstance(reader, ReadOnce) else ReadOnce(reader)


SMALL_FILE_BYTES = 64 * 1024 * 1024
"""The longest file that is read whole. The largest real one, a tokenizer of 262,144 tokens, has 33 MB; the index
of a checkpoint with 100,000 tensors about 10 MB."""

MAX_OBJECT_BYTES = 16 * 1024 * 1024
"""The longest JSON file, but for an index, of which every value becomes a Python object: of three bytes seventy. The
largest real one, a tokenizer_config.json that lists 65,536 tokens of speech, has 12 MB."""


def read_json_object(reader: FolderReader, name: str, error: type[HeadraceError]) -> dict[str, Any]:
    """A small JSON file that holds an object.

    Raises:
        HeadraceError: Of the class ``error``: it is too long, not UTF-8, not JSON, or not an object.
    """
    kept = read_once(reader)
    return kept.once("json", name, lambda: _read_json_object(kept, name, error))


def _read_json_object(reader: FolderReader, name: str, error: type[HeadraceError]) -> dict[str, Any]:
    size_bytes = reader.sizes()[name]
    most = SMALL_FILE_BYTES if name.endswith(".index.json") else MAX_OBJECT_BYTES
    if size_bytes > most:
        raise error(
            f"{name} is too long.",
            evidence=f"{size_bytes:,} bytes; at most {most:,} are read.",
            fix=f"Copy {name} from the model's source again.",
        )
    content = reader.read_range(name, 0, size_bytes)
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        if other := instead_of(name, content, size_bytes):
            raise error(other.message, evidence=other.evidence, fix=other.fix) from problem
        raise error(
            f"{name} is not a JSON object.",
            evidence=f"{problem} ({size_bytes:,} bytes)",
            fix=f"Copy {name} from the model's source again.",
        ) from problem
