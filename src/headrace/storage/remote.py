"""A folder in an object store, through the store's fsspec driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.resources.errors import ArtifactsNotFound, HeadraceError
from headrace.storage.artifacts import ArtifactFile, Artifacts, is_hidden, require_inside

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK_BYTES = 8 * 1024 * 1024
"""How much is asked for at once: large enough that a round trip of 50 ms costs little."""

_VERSION_KEYS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "blob_id", "mtime", "LastModified", "updated")
"""Where drivers put what changes with the content: s3fs, gcsfs, adlfs and huggingface_hub; the strongest first."""


class RemoteArtifacts(Artifacts):
    """A prefix of an object store.

    Args:
        address: What the user gave, for messages.
        filesystem: The driver.
        root: The prefix, as the driver spells it.
    """

    def __init__(self, address: str, filesystem: AbstractFileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        with _translated(address):
            listing: dict[str, dict[str, Any]] = filesystem.find(self._root, detail=True)
        super().__init__(address, self._files(address, listing))

    def list_again(self) -> RemoteArtifacts:
        """The prefix as it is now; drivers keep listings, so those are thrown away first."""
        self._filesystem.invalidate_cache()
        return RemoteArtifacts(self.address, self._filesystem, self._root)

    def copy(self, file: ArtifactFile, target: int, copied: Callable[[int], None]) -> None:
        """Read the object in chunks, in order."""
        for start in range(0, file.size_bytes, CHUNK_BYTES):
            chunk = self._read(file, start, min(CHUNK_BYTES, file.size_bytes - start))
            view = memoryview(chunk)
            while view:
                view = view[os.write(target, view) :]
            copied(len(chunk))

    def _read(self, file: ArtifactFile, start: int, length: int) -> bytes:
        end = min(start + length, file.size_bytes)
        if end <= start:
            return b""
        with _translated(f"{self.address}/{file.name}"):
            content: bytes = self._filesystem.cat_file(f"{self._root}/{file.name}", start=start, end=end)
        return content

    def _files(self, address: str, listing: dict[str, dict[str, Any]]) -> Iterator[ArtifactFile]:
        for path, info in listing.items():
            if path.rstrip("/") == self._root or info.get("type") == "directory":
                continue  # some stores list the prefix itself as an empty object
            name = require_inside(path.removeprefix(f"{self._root}/"), address)
            if not is_hidden(name):
                yield ArtifactFile(name=name, size_bytes=int(info.get("size") or 0), version=_version(info))


def _version(info: dict[str, Any]) -> str:
    return next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Every driver has exceptions of its own, few of them `OSError`: all of them mean "not readable from here"."""
    try:
        yield
    except HeadraceError:
        raise
    except FileNotFoundError as error:
        raise ArtifactsNotFound(f"There is nothing at {what}.", fix="Check the address.") from error
    except Exception as error:
        raise ArtifactsNotFound(
            f"{what} cannot be read.",
            evidence=f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else 'no message'}",
            fix="Check the address, the network, and that this process has the store's credentials in its environment.",
        ) from error
