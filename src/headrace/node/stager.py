"""Brings to this machine what replicas need: the runtime's environment, and the model in the form that it loads.

One task per order: install, copy, write anew what no engine should have to load (`loadable`), convert for the runtime.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from headrace.node.conversion import convert
from headrace.node.loadable import loadable
from headrace.node.pace import Pace
from headrace.resources.assignments import RuntimeReport, StageOrder, StageReport
from headrace.resources.errors import (
    ArtifactsChanged,
    Cancelled,
    Failure,
    HeadraceError,
    InternalError,
    RuntimeUnknown,
    error_from,
)
from headrace.resources.models import Dtype
from headrace.runtimes import Environment, Installable, Runtime
from headrace.storage import Claim, ModelCache, fingerprint, open_artifacts, stage

Key = tuple[str, str, Dtype]
"""Fingerprint, runtime and number format: what a `StageReport` is known by."""

_log = logging.getLogger(__name__)


class Installer(Protocol):
    """What `headrace.runtimes.Environments` does for a node."""

    def install(
        self, runtime: Installable, progress: Callable[[str], None], cancelled: Callable[[], bool]
    ) -> Environment:
        """Make the environment, or find it made."""

    def inspect(self, runtime: Installable) -> RuntimeReport:
        """What is there."""


class Staged(msgspec.Struct, frozen=True):
    """What a replica is started from.

    Attributes:
        model_dir: The model's folder; where the runtime asks for a conversion, what that made of it.
    """

    environment: Environment
    model_dir: Path


class _Stage:
    def __init__(self, order: StageOrder) -> None:
        self.order = order
        self.report = StageReport(
            fingerprint=order.fingerprint, runtime=order.runtime, dtype=order.dtype, phase="installing"
        )
        self.dropped = False
        self.claim: Claim | None = None
        self.task: asyncio.Task[Staged]

    def now(self, **changes: object) -> None:
        """Change the report; safe from any thread."""
        self.report = msgspec.structs.replace(self.report, **changes)

    def drop(self) -> None:
        """Stop it, and let go of its model once nothing works on it any more."""
        self.dropped = True
        self.task.add_done_callback(lambda _: self.claim.release() if self.claim else None)


class Stager:
    """Everything that is being staged, or was, for orders that still stand.

    Args:
        cache: Where models' files go.
        runtimes: Every runtime by name.
        installer: Makes environments.
        changed: Called when a report is worth sending at once.
        credentials: What a project's address is opened with, as `headrace.storage.Credentials.options`.
    """

    def __init__(
        self,
        cache: ModelCache,
        runtimes: Mapping[str, Runtime],
        installer: Installer,
        changed: Callable[[], None],
        credentials: Callable[[str, str], dict[str, str]] = lambda _project, _uri: {},
    ) -> None:
        self._cache = cache
        self._runtimes = runtimes
        self._installer = installer
        self._changed = changed
        self._credentials = credentials
        self._stages: dict[Key, _Stage] = {}
        self._installs: dict[str, asyncio.Task[Environment]] = {}

    @property
    def reports(self) -> tuple[StageReport, ...]:
        """How far each is."""
        return tuple(stage.report for stage in self._stages.values())

    def want(self, orders: Iterable[StageOrder]) -> None:
        """Stage these and nothing else; what failed stays failed until its order went away once."""
        wanted = {_key(order): order for order in orders}
        for key in self._stages.keys() - wanted.keys():
            self._stages.pop(key).drop()
        for key, order in wanted.items():
            if key not in self._stages:
                self._begin(key, order)

    async def staged(self, order: StageOrder) -> Staged:
        """Wait until an order is done.

        Raises:
            HeadraceError: It failed, or was dropped meanwhile.
        """
        key = _key(order)
        if key not in self._stages:
            self._begin(key, order)
        return await asyncio.shield(self._stages[key].task)

    async def close(self) -> None:
        """Stop all of it and wait until it has."""
        tasks = [stage.task for stage in self._stages.values()]
        self.want([])
        await asyncio.gather(*tasks, *self._installs.values(), return_exceptions=True)

    def _begin(self, key: Key, order: StageOrder) -> None:
        new = _Stage(order)
        self._stages[key] = new
        new.task = asyncio.create_task(self._run(new), name=f"stage {order.fingerprint[:12]}")
        # Whoever waits gets the failure, and the report has it: a failure that nobody waits for is no news.
        new.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _run(self, this: _Stage) -> Staged:
        try:
            # Before anybody looks whether it is there, until no order wants it: nobody removes it in between.
            this.claim = self._cache.claim(this.order.fingerprint)
            environment = await asyncio.shield(self._installation(this.order.runtime))
            this.now(phase="copying", detail="")
            self._changed()
            model_dir = await asyncio.to_thread(self._fetch, this)
            model_dir, detail, found = await asyncio.to_thread(self._prepare, this, model_dir)
        except Exception as error:
            failure = _failure(error)
            this.now(phase="failed", failure=failure)
            raise error_from(failure) from error
        else:
            this.now(phase="done", detail=detail, found=found, done_at=time.time())
            return Staged(environment, model_dir)
        finally:
            self._changed()

    def _installation(self, name: str) -> asyncio.Task[Environment]:
        """One for all stages that want the same runtime."""
        if name not in self._installs:
            self._installs[name] = asyncio.create_task(asyncio.to_thread(self._install, name), name=f"install {name}")
            self._installs[name].add_done_callback(lambda _: self._installs.pop(name))
        return self._installs[name]

    def _install(self, name: str) -> Environment:
        if name not in self._runtimes:
            raise RuntimeUnknown(f"This node has no runtime {name!r}.", fix=f"It has: {', '.join(self._runtimes)}.")

        def progress(sentence: str) -> None:
            for waiting in list(self._stages.values()):
                if waiting.order.runtime == name and waiting.report.phase == "installing":
                    waiting.now(detail=sentence)

        def cancelled() -> bool:
            return not any(waiting.order.runtime == name for waiting in list(self._stages.values()))

        return self._installer.install(self._runtimes[name], progress, cancelled)

    def _fetch(self, this: _Stage) -> Path:
        order = this.order
        if (final := self._cache.root / order.fingerprint).is_dir():
            return final  # a folder has its name only when it is whole, wherever it came from
        artifacts = open_artifacts(order.artifact_uri, self._credentials(order.project, order.artifact_uri))
        if (found := fingerprint(artifacts)) != order.fingerprint:
            raise ArtifactsChanged(
                f"The files at {order.artifact_uri} are not those that were registered.",
                evidence=f"Their fingerprint is {found}, registered was {order.fingerprint}.",
                fix="Import them as a new version.",
            )
        pace = Pace()

        def tell(done_bytes: int, total_bytes: int) -> None:
            this.now(done_bytes=done_bytes, total_bytes=total_bytes, bytes_per_s=pace.bytes_per_s(done_bytes))

        with self._room(this, order.fingerprint, artifacts.total_bytes):
            folder = stage(artifacts, self._cache.root, tell, lambda: this.dropped)
        if unvouched := artifacts.unvouched:
            this.now(notes=(*this.report.notes, _unvouched(unvouched, len(artifacts.files))))
        return folder

    @contextmanager
    def _room(self, this: _Stage, name: str, needed_bytes: int) -> Iterator[None]:
        """Room for a folder of this order's model, and a word in the timeline of what went for it."""
        with self._cache.room(name, needed_bytes) as said:
            this.now(notes=(*this.report.notes, *said))
            yield

    def _prepare(self, this: _Stage, source: Path) -> tuple[Path, str, str]:
        """The folder that the runtime loads; what making it took, and for who comes later that it is there.

        Both sentences are empty where it is the staged folder itself.
        """

        def tell(detail: str, done_bytes: int, total_bytes: int) -> None:
            if this.report.phase != "converting":
                this.now(phase="converting", done_bytes=0, total_bytes=0)
                self._changed()
            this.now(detail=detail, done_bytes=done_bytes, total_bytes=total_bytes)

        began_at = time.monotonic()
        ready = loadable(source, tell, lambda: this.dropped, partial(self._room, this))
        said = _Said(ready.kept, ready.kept)
        if ready.what:
            said = _Said.of(ready.what, time.monotonic() - began_at if ready.anew else None)
        folder, more = self._convert(this, ready.folder)
        return folder, f"{said.now} {more.now}".strip(), f"{said.later} {more.later}".strip()

    def _convert(self, this: _Stage, source: Path) -> tuple[Path, _Said]:
        conversion = self._runtimes[this.order.runtime].conversion(source, this.order.dtype)
        if conversion is None:
            return source, _Said("", "")
        this.now(phase="converting", detail=f"{conversion.reason}.", done_bytes=0, total_bytes=0)
        self._changed()

        def cancelled() -> bool:
            return this.dropped

        def install(converter: Installable) -> Environment:
            return self._installer.install(converter, lambda step: this.now(detail=f"{step}."), cancelled)

        def tell(detail: str, done_bytes: int, total_bytes: int) -> None:
            this.now(detail=detail, done_bytes=done_bytes, total_bytes=total_bytes)

        began_at = time.monotonic()
        made = convert(conversion, source, install, tell, cancelled, room=partial(self._room, this))
        return made.folder, _Said.of(made.what, time.monotonic() - began_at if made.anew else None)


class _Said(NamedTuple):
    """Two sentences of a conversion: for the deployment that waited for it, and for those that come later."""

    now: str
    later: str

    @classmethod
    def of(cls, what: str, took_s: float | None) -> _Said:
        """Of a conversion that took so long; None: it was there."""
        found = f"{what[:1].upper()}{what[1:]}, was there already: nothing to convert."
        return cls(found if took_s is None else f"Converted to {what}, in {took_s:.1f} s.", found)


def _key(order: StageOrder) -> Key:
    return order.fingerprint, order.runtime, order.dtype


def _unvouched(names: tuple[str, ...], count: int) -> str:
    shown = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
    return f"The store has no checksum for {len(names)} of {count} files, so only their lengths were checked: {shown}."


def _failure(error: Exception) -> Failure:
    if isinstance(error, HeadraceError):
        if not isinstance(error, Cancelled):
            _log.warning("Staging failed: %s", error)
        return error.failure
    _log.exception("Staging failed.", exc_info=error)
    return InternalError("Staging failed.", evidence=f"{type(error).__name__}: {error}").failure
