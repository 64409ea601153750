"""The staged models of a machine as a cache under a limit: whoever uses one claims it, and room is made of the others.

A model is its folder with what was made of it and what there is of either so far: they come and go together.

<root>/FINGERPRINT, FINGERPRINT.KEY    the model and its conversions (`whole`)
<root>/.FINGERPRINT.claim              locked, shared, by whoever uses the model, in any process; its modification time
                                       is when it was used last
<root>/.NAME.TOKEN.removing            on its way out: renamed under the claim's exclusive lock, so that nobody who
                                       finds a folder can lose it
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from headrace.resources.assignments import ModelCacheReport, StagedModel
from headrace.storage.whole import SPARE_BYTES, taken_bytes

_REMOVING = ".removing"
_PARTIAL = ".partial"

_log = logging.getLogger(__name__)

Room = Callable[[str, int], AbstractContextManager[object]]
"""Has room made for a folder of this name and so many bytes, for as long as it is being made."""


def any_room(_name: str, _needed_bytes: int) -> AbstractContextManager[object]:
    """Where nothing is limited."""
    return nullcontext()


class CachedModel(msgspec.Struct, frozen=True):
    """A model that is staged here, wholly or in part.

    Attributes:
        fingerprint: Its name.
        size_bytes: Of all its folders; of what is not whole yet, what it takes on the disk.
        used_at: When it was last claimed or let go of, in Unix seconds.
    """

    fingerprint: str
    size_bytes: int
    used_at: float


class Claim:
    """A model that is in use: nobody removes it until this is released, or its process ends.

    Args:
        root: The cache.
        fingerprint: The model; it need not be there yet.

    Raises:
        OSError: The claim's file cannot be written.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        # The claim's file stays: removing it while another process waits on it would give two kinds of holders.
        self._descriptor: int | None = _open(root / f".{fingerprint}.claim")
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # whoever removes holds it for some renames only
        _touch(self._descriptor)

    def release(self) -> None:
        """Let go of it; more than once does no harm."""
        if self._descriptor is not None:
            _touch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class ModelCache:
    """The models of one folder. One process makes room in it; any may claim and remove.

    Args:
        root: Where they are; made when it is needed.
        limit_bytes: How much all of them together may take, and no more than the disk has; None: any amount, and
            nothing ever goes. Models that are in use are kept even where they alone pass it.
    """

    def __init__(self, root: Path, limit_bytes: int | None = None) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._promised: list[tuple[str, int]] = []

    def claim(self, fingerprint: str) -> Claim:
        """Keep a model from being removed; taken before anybody looks whether it is there.

        Raises:
            OSError: The claim cannot be written.
        """
        return Claim(self.root, fingerprint)

    def models(self) -> list[CachedModel]:
        """What is here, the longest unused first."""
        found: dict[str, list[Path]] = {}
        for path in self._folders():
            found.setdefault(_fingerprint(path), []).append(path)
        models = [self._model(fingerprint, folders) for fingerprint, folders in found.items()]
        return sorted(models, key=lambda one: (one.used_at, one.fingerprint))

    def report(self) -> ModelCacheReport:
        """What is here, for people."""
        models = tuple(
            StagedModel(
                fingerprint=model.fingerprint,
                size_bytes=model.size_bytes,
                used_at=model.used_at,
                in_use=self._in_use(model.fingerprint),
            )
            for model in self.models()
        )
        return ModelCacheReport(limit_bytes=self.limit_bytes, models=models)

    @contextmanager
    def room(self, name: str, needed_bytes: int) -> Iterator[tuple[str, ...]]:
        """Room for a folder while it is made: what else is promised counts, and what nobody uses goes, oldest first.

        Args:
            name: The folder, FINGERPRINT or FINGERPRINT.KEY, of a model that the caller has claimed.
            needed_bytes: What it will take.

        Yields:
            A sentence for each model that was removed, and one where the limit is passed all the same.
        """
        if self.limit_bytes is None or (self.root / name).is_dir():
            yield ()
            return
        promise = (name, needed_bytes)
        with self._lock:
            self._promised.append(promise)
            said = tuple(self._evict(self.limit_bytes, needed_bytes))
        try:
            for sentence in said:
                _log.info("%s", sentence)
            yield said
        finally:
            with self._lock:
                self._promised.remove(promise)

    def remove(self, fingerprint: str) -> bool:
        """Remove a model, unless somebody uses it or makes a part of it; whether it is gone."""
        doomed: list[Path] = []
        with ExitStack() as held:
            folders = [path for path in self._folders() if _fingerprint(path) == fingerprint]
            makers = {f".{path.name.removeprefix('.').removesuffix(_PARTIAL)}.lock" for path in folders}
            if not all(_held(held, self.root / name) for name in (f".{fingerprint}.claim", *makers)):
                return False
            for path in folders:
                aside = self.root / f".{path.name.removeprefix('.')}.{secrets.token_hex(4)}{_REMOVING}"
                path.rename(aside)
                doomed.append(aside)
        for path in doomed:
            shutil.rmtree(path, ignore_errors=True)
        return True

    def _evict(self, limit_bytes: int, needed_bytes: int) -> Iterator[str]:
        for left in self.root.glob(f".*{_REMOVING}"):  # of a process that was killed at it
            shutil.rmtree(left, ignore_errors=True)
        models = self.models()
        total_bytes = sum(model.size_bytes for model in models)
        absent = {_fingerprint(Path(name)) for name, _ in self._promised} - {model.fingerprint for model in models}
        total_bytes += sum(self._promised_bytes(fingerprint) for fingerprint in absent)
        would = f"the model cache would have passed its limit of {_gb(limit_bytes)}"
        for model in models:
            if total_bytes <= limit_bytes:
                break
            if self.remove(model.fingerprint):
                total_bytes -= model.size_bytes
                yield _evicted(model, needed_bytes, would)
        if total_bytes > limit_bytes:
            yield (
                f"The model cache passes its limit of {_gb(limit_bytes)}: it comes to {_gb(total_bytes)}, "
                "and all that is left in it is in use."
            )
        yield from self._evict_for_disk(needed_bytes)

    def _evict_for_disk(self, needed_bytes: int) -> Iterator[str]:
        """Where the limit would allow what the disk does not: but nothing goes for what would not fit even then."""
        if (lacking_bytes := self._lacking_bytes()) <= 0:
            return
        unused = [model for model in self.models() if not self._in_use(model.fingerprint)]
        if sum(model.size_bytes for model in unused) < lacking_bytes:
            return
        for model in unused:
            if self.remove(model.fingerprint):
                yield _evicted(model, needed_bytes, "the disk would have been full")
            if self._lacking_bytes() <= 0:
                return

    def _lacking_bytes(self) -> int:
        """By how much the disk is too small for all that is promised and not on it yet."""
        outstanding_bytes = sum(
            max(0, size - taken_bytes(self.root / f".{name}{_PARTIAL}")) for name, size in dict(self._promised).items()
        )
        return outstanding_bytes + SPARE_BYTES - shutil.disk_usage(self.root).free

    def _in_use(self, fingerprint: str) -> bool:
        with ExitStack() as held:
            return not _held(held, self.root / f".{fingerprint}.claim")

    def _folders(self) -> Iterator[Path]:
        with suppress(FileNotFoundError), os.scandir(self.root) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".")
                if entry.is_dir(follow_symlinks=False) and (not hidden or entry.name.endswith(_PARTIAL)):
                    yield Path(entry.path)

    def _model(self, fingerprint: str, folders: Iterable[Path]) -> CachedModel:
        whole_bytes = unfinished_bytes = 0
        seen: set[tuple[int, int]] = set()  # a conversion links to the shards that it leaves as they are
        for folder in folders:
            files = {(status.st_dev, status.st_ino): status for status in _files(folder)}
            own = [status for inode, status in files.items() if inode not in seen]
            seen |= files.keys()
            if folder.name.startswith("."):
                unfinished_bytes += sum(status.st_blocks * 512 for status in own)  # downloads have holes
            else:
                whole_bytes += sum(status.st_size for status in own)
        size_bytes = whole_bytes + max(unfinished_bytes, self._promised_bytes(fingerprint))
        return CachedModel(fingerprint, size_bytes, self._used_at(fingerprint, folders))

    def _promised_bytes(self, fingerprint: str) -> int:
        """What is being made of a model: each folder once, however many wait for it."""
        return sum(
            {name: size for name, size in list(self._promised) if _fingerprint(Path(name)) == fingerprint}.values()
        )

    def _used_at(self, fingerprint: str, folders: Iterable[Path]) -> float:
        with suppress(OSError):
            return (self.root / f".{fingerprint}.claim").stat().st_mtime
        moments = [0.0]
        for folder in folders:  # staged by a version of ours that made no claims
            with suppress(OSError):
                moments.append(folder.stat().st_mtime)
        return max(moments)


def _fingerprint(folder: Path) -> str:
    """Of ``FINGERPRINT``, ``FINGERPRINT.KEY`` and ``.FINGERPRINT.KEY.partial``."""
    return folder.name.removeprefix(".").partition(".")[0]


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _touch(descriptor: int) -> None:
    now_ns = time.time_ns()  # the kernel's own stamp is some milliseconds coarse
    os.utime(descriptor, ns=(now_ns, now_ns))


def _held(stack: ExitStack, path: Path) -> bool:
    """Hold a lock alone until the stack ends; whether it could be had at once."""
    descriptor = _open(path)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _files(folder: Path) -> Iterator[os.stat_result]:
    """Every file below, but what goes while this looks."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield os.lstat(Path(parent, name))


def _evicted(model: CachedModel, needed_bytes: int, otherwise: str) -> str:
    return (
        f"Evicted staged model {model.fingerprint[:12]} ({_gb(model.size_bytes)}, last used "
        f"{_ago(time.time() - model.used_at)} ago): with {_gb(needed_bytes)} more {otherwise}."
    )


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def _ago(seconds: float) -> str:
    for limit_s, unit_s, letter in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit_s:
            return f"{max(0, seconds) // unit_s:.0f} {letter}"
    return f"{seconds // 86_400:.0f} days"
