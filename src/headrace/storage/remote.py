"""A folder in an object store: listed by its fsspec driver, read by plain requests where the store gives them."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem, sync

from headrace.resources.errors import ArtifactsNotFound, Cancelled, HeadraceError
from headrace.storage.artifacts import ArtifactFile, Artifacts, is_hidden, require_inside
from headrace.storage.checksums import Checksum, from_listing, from_s3_head
from headrace.storage.download import Piece, download
from headrace.storage.located import locate
from headrace.storage.ranges import Later, PlainRanges, Refused

_log = logging.getLogger(__name__)

READ_TIMEOUT_S = 120.0
"""For one range, whatever the driver's own limit: 8 MiB at 70 kB/s."""

ATTEMPTS = 5
DRIVER_ATTEMPTS = 2
FIRST_DELAY_S = 0.2
"""A range that cannot be read is asked for again, each time after twice as long: four times within three seconds. What
came of it stays: only attempts that bring nothing count."""

LONGEST_DELAY_S = 60.0
"""For a store that asks for patience."""

_VERSION_KEYS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "blob_id", "mtime", "LastModified", "updated")
"""Where drivers put what changes with the content: s3fs, gcsfs, adlfs and huggingface_hub; the strongest first."""


class RemoteArtifacts(Artifacts):
    """A prefix of an object store.

    Args:
        address: What the user gave, for messages.
        filesystem: The driver.
        root: The prefix, as the driver spells it; or a ``*.gguf``, which is then the only file.
    """

    resumable: ClassVar[bool] = True

    def __init__(self, address: str, filesystem: AbstractFileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        if hasattr(filesystem, "retries"):  # s3fs and gcsfs: each try of ours would be five or six of theirs
            filesystem.retries = DRIVER_ATTEMPTS
        self._plain: PlainRanges | None = PlainRanges(partial(locate, filesystem))
        self._listed = self._root
        with translated(address):
            listing = self._list()
        self._listing: dict[str, dict[str, Any]] = {}
        self._checksums: dict[str, Checksum | None] = {}
        super().__init__(address, self._files(address, listing))

    def _list(self) -> dict[str, dict[str, Any]]:
        """What there is, by path; drivers do not agree on what a file has in it, so that one is asked for by itself."""
        if self._listed.lower().endswith(".gguf"):
            info: dict[str, Any] = self._filesystem.info(self._listed)
            if info.get("type") == "file":
                self._root = self._listed.rpartition("/")[0]
                return {self._listed: info}
        found: dict[str, dict[str, Any]] = self._filesystem.find(self._listed, detail=True)
        return found

    @property
    def by_plain_requests(self) -> bool:
        """Whether its objects are read without its driver, as far as is known."""
        return self._plain is not None

    @property
    def unvouched(self) -> tuple[str, ...]:
        """Files that were copied and that the store has no checksum for."""
        return tuple(name for name, checksum in sorted(self._checksums.items()) if checksum is None)

    def list_again(self) -> RemoteArtifacts:
        """The prefix as it is now; drivers keep listings, so those are thrown away first."""
        self._filesystem.invalidate_cache()
        return RemoteArtifacts(self.address, self._filesystem, self._listed)

    def copy_into(self, folder: Path, copied: Callable[[int], None]) -> None:
        """Ranges of several objects at once, held against the store's checksums."""
        download(self, self.files, folder, copied)

    def pieces(self, file: ArtifactFile, start: int, length: int, stopped: threading.Event) -> Iterator[Piece]:
        """These bytes, each piece good until the next; where the network breaks, the rest is asked for again.

        Raises:
            ArtifactsNotFound: They cannot be read, also after `ATTEMPTS` without a byte.
            Cancelled: ``stopped`` was set while it waited for another attempt.
        """
        end, failures = min(start + length, file.size_bytes), 0
        while start < end:
            with translated(f"{self.address}/{file.name}"):
                try:
                    for piece in self._attempt(file, start, end):
                        start, failures = start + len(piece), 0
                        yield piece
                except (FileNotFoundError, PermissionError):
                    raise
                except Exception as error:  # drivers have exceptions of their own
                    failures += 1
                    if failures >= ATTEMPTS:
                        raise
                    self._pause(file, failures, error, stopped)
                else:
                    return

    def checksum(self, file: ArtifactFile) -> Checksum | None:
        """From the listing; S3 is asked for each object."""
        if file.name not in self._checksums:
            found = from_listing(self._listing.get(file.name, {}))
            if found is None and "s3" in _protocols(self._filesystem):
                with translated(f"{self.address}/{file.name}"):
                    found = from_s3_head(self._s3_head(file))
            self._checksums[file.name] = found
        return self._checksums[file.name]

    def _s3_head(self, file: ArtifactFile) -> dict[str, Any]:
        bucket, _, key = f"{self._root}/{file.name}".partition("/")
        head: dict[str, Any] = self._filesystem.call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        return head

    def _read(self, file: ArtifactFile, start: int, length: int) -> bytes:
        return b"".join(bytes(piece) for piece in self.pieces(file, start, length, threading.Event()))

    def _attempt(self, file: ArtifactFile, start: int, end: int) -> Iterator[Piece]:
        """By a plain request, where the store gives it; else by the driver, from a refusal on always."""
        if self._plain:
            try:
                yield from self._plain.pieces(f"{self._root}/{file.name}", start, end, READ_TIMEOUT_S)
            except Refused as refused:
                _log.info("%s is read by its driver. %s", self.address, refused)
                self._plain = None
            except Later as later:
                if later.status != HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                _log.info(
                    "A range of %s is read by its driver: some stores fail at what they should refuse.", file.name
                )
            else:
                return
        yield self._range(file, start, end)

    @staticmethod
    def _pause(file: ArtifactFile, failures: int, error: Exception, stopped: threading.Event) -> None:
        delay_s = FIRST_DELAY_S * 2 ** (failures - 1) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        if isinstance(error, Later):
            delay_s = max(delay_s, min(error.after_s, LONGEST_DELAY_S))
        _log.info("Reading %s again in %.1f s: %s", file.name, delay_s, error)
        if stopped.wait(delay_s):
            raise Cancelled("Bringing the weights here has ended.")

    def _range(self, file: ArtifactFile, start: int, end: int) -> bytes:
        path = f"{self._root}/{file.name}"
        if isinstance(self._filesystem, AsyncFileSystem) and self._filesystem.async_impl:
            read = self._filesystem._cat_file  # the public one has no time limit
            content: bytes = sync(self._filesystem.loop, read, path, start=start, end=end, timeout=READ_TIMEOUT_S)
        else:
            # Without a cache: the Hub's driver would read 5 MB ahead of each range.
            content = self._filesystem.cat_file(path, start=start, end=end, cache_type="none")
        if len(content) < end - start and self._size(path) == file.size_bytes:
            raise ConnectionError(f"{len(content)} of {end - start} bytes came.")
        return content

    def _size(self, path: str) -> int | None:
        """The object's length now, past what the driver remembers."""
        self._filesystem.invalidate_cache()
        size: int | None = self._filesystem.info(path).get("size")
        return size

    def _files(self, address: str, listing: dict[str, dict[str, Any]]) -> Iterator[ArtifactFile]:
        for path, info in listing.items():
            if path.rstrip("/") == self._root or info.get("type") == "directory":
                continue  # some stores list the prefix itself as an empty object
            name = require_inside(path.removeprefix(f"{self._root}/"), address)
            if not is_hidden(name):
                self._listing[name] = info
                yield ArtifactFile(name=name, size_bytes=int(info.get("size") or 0), version=_version(info))


def _protocols(filesystem: AbstractFileSystem) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _version(info: dict[str, Any]) -> str:
    return next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")


@contextmanager
def translated(what: str) -> Iterator[None]:
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
            fix="Check the address, the network, and the credentials: the project's (`headrace credentials list`), "
            "else those in the environment of the process that reads.",
        ) from error
