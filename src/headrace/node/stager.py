"""Brings to this machine what replicas need: the runtime's environment, and the model in the form that it loads.

One task per order: install, copy, convert.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from headrace.node.conversion import convert
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
from headrace.storage import fingerprint, open_artifacts, stage

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
        self.task: asyncio.Task[Staged]

    def now(self, **changes: object) -> None:
        """Change the report; safe from any thread."""
        self.report = msgspec.structs.replace(self.report, **changes)


class Stager:
    """Everything that is being staged, or was, for orders that still stand.

    Args:
        models_dir: Where models' files go.
        runtimes: Every runtime by name.
        installer: Makes environments.
        changed: Called when a report is worth sending at once.
    """

    def __init__(
        self,
        models_dir: Path,
        runtimes: Mapping[str, Runtime],
        installer: Installer,
        changed: Callable[[], None],
    ) -> None:
        self._models_dir = models_dir
        self._runtimes = runtimes
        self._installer = installer
        self._changed = changed
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
            self._stages.pop(key).dropped = True
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
            environment = await asyncio.shield(self._installation(this.order.runtime))
            this.now(phase="copying", detail="")
            self._changed()
            model_dir = await asyncio.to_thread(self._fetch, this)
            model_dir, detail, found = await asyncio.to_thread(self._convert, this, model_dir)
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
        if (final := self._models_dir / order.fingerprint).is_dir():
            return final  # a folder has its name only when it is whole, wherever it came from
        artifacts = open_artifacts(order.artifact_uri)
        if (found := fingerprint(artifacts)) != order.fingerprint:
            raise ArtifactsChanged(
                f"The files at {order.artifact_uri} are not those that were registered.",
                evidence=f"Their fingerprint is {found}, registered was {order.fingerprint}.",
                fix="Import them as a new version.",
            )
        return stage(
            artifacts,
            self._models_dir,
            lambda done, total: this.now(done_bytes=done, total_bytes=total),
            lambda: this.dropped,
        )

    def _convert(self, this: _Stage, source: Path) -> tuple[Path, str, str]:
        """The folder that the runtime loads; what making it took, and for who comes later that it is there.

        Both sentences are empty where the runtime loads any folder.
        """
        conversion = self._runtimes[this.order.runtime].conversion(source, this.order.dtype)
        if conversion is None:
            return source, "", ""
        this.now(phase="converting", detail=f"{conversion.reason}.", done_bytes=0, total_bytes=0)
        self._changed()

        def cancelled() -> bool:
            return this.dropped

        def install(converter: Installable) -> Environment:
            return self._installer.install(converter, lambda step: this.now(detail=f"{step}."), cancelled)

        def tell(detail: str, done_bytes: int, total_bytes: int) -> None:
            this.now(detail=detail, done_bytes=done_bytes, total_bytes=total_bytes)

        began_at = time.monotonic()
        made = convert(conversion, source, install, tell, cancelled)
        found = f"{made.what}, was there already: nothing to convert."
        took = f"Converted to {made.what}, in {time.monotonic() - began_at:.1f} s."
        return made.folder, took if made.anew else found, found


def _key(order: StageOrder) -> Key:
    return order.fingerprint, order.runtime, order.dtype


def _failure(error: Exception) -> Failure:
    if isinstance(error, HeadraceError):
        if not isinstance(error, Cancelled):
            _log.warning("Staging failed: %s", error)
        return error.failure
    _log.exception("Staging failed.", exc_info=error)
    return InternalError("Staging failed.", evidence=f"{type(error).__name__}: {error}").failure
