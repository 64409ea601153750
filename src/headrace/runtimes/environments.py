"""Virtual environments of runtimes: made with pip, named by what is pinned in them, shared by whoever needs the same.

    <runtimes_dir>/<name>-<hash>                  the environment; `MANIFEST` inside says that it is complete
    <runtimes_dir>/<name>-<hash>/engines/<stamp>  the engines' own code, see `engines.py`
    <runtimes_dir>/.<name>-<hash>.lock            held by whoever builds or removes it, its pip included

An environment is built in its final place, because its scripts name their interpreter by path. Without a manifest and
without a holder of the lock it is what a dead attempt has left, and the next attempt begins anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headrace.resources.assignments import RuntimeReport
from headrace.resources.errors import Cancelled, DiskFull
from headrace.runtimes import engines
from headrace.runtimes.pip import Progress, make_environment
from headrace.runtimes.runtime import Environment, Installable

MANIFEST = "manifest.json"

_LOCK_POLL_S = 0.2
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;]+)", re.MULTILINE)


class Manifest(msgspec.Struct, frozen=True):
    """What was installed, written last."""

    runtime: str
    requirements: str
    python: str
    size_bytes: int
    installed_at: float


class Environments:
    """The environments of one machine.

    Args:
        root: `headrace.resources.layout.Layout.runtimes_dir`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, runtime: Installable) -> Environment | None:
        """The environment that this version of Headrace needs, or None when it is not (wholly) there."""
        path = self._path(runtime)
        return Environment(path, engines.place(path)) if (path / MANIFEST).exists() else None

    def install(
        self, runtime: Installable, progress: Progress = lambda _: None, cancelled: Callable[[], bool] = lambda: False
    ) -> Environment:
        """Make the environment, or wait for another process that makes it; no work where it is there already.

        Args:
            runtime: Whose environment.
            progress: Called with sentences for a person.
            cancelled: Asked now and then; once it is true everything is undone.

        Raises:
            Cancelled: ``cancelled()`` became true.
            DiskFull: There is no room for it.
            RuntimeInstallFailed: pip or venv failed.
        """
        path = self._path(runtime)
        if not (path / MANIFEST).exists():
            with self._locked(path.name, progress, cancelled) as lock:
                if not (path / MANIFEST).exists():
                    self._require_room(runtime)
                    self._build(runtime, path, lock, progress, cancelled)
        return Environment(path, engines.place(path))

    def inspect(self, runtime: Installable) -> RuntimeReport:
        """What is there, and how it differs from what this version of Headrace pins. Starts no interpreter."""
        path = self._path(runtime)
        try:
            manifest = (path / MANIFEST).read_bytes()
        except FileNotFoundError:
            return RuntimeReport(name=runtime.name, installed=False, mismatch=self._why_missing(runtime, path))
        versions = _versions(path, runtime.requirements)
        stamps = engines.placed(path)
        return RuntimeReport(
            name=runtime.name,
            installed=True,
            path=str(path),
            size_bytes=msgspec.json.decode(manifest, type=Manifest).size_bytes,
            versions=versions,
            engines_stamp=engines.stamp() if engines.stamp() in stamps else (stamps or [""])[-1],
            mismatch=_mismatch(versions, runtime.requirements, stamps),
        )

    def remove(self, runtime: Installable) -> int:
        """Remove every environment of a runtime, old ones too; returns the bytes freed.

        Engines that run from it break: stop them first.
        """
        freed_bytes = 0
        for path in self._all(runtime):
            with self._locked(path.name, lambda _: None, lambda: False):
                freed_bytes += _size_bytes(path)
                (path / MANIFEST).unlink(missing_ok=True)  # first: half of it must not look whole
                shutil.rmtree(path, ignore_errors=True)
        return freed_bytes

    def _path(self, runtime: Installable) -> Path:
        what = f"{sys.implementation.cache_tag}\0{runtime.requirements}"
        return self._root / f"{runtime.name}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"

    def _all(self, runtime: Installable) -> list[Path]:
        name = re.compile(re.escape(runtime.name) + "-[0-9a-f]{12}")
        return sorted(path for path in self._root.glob("*") if name.fullmatch(path.name))

    def _build(
        self, runtime: Installable, path: Path, lock: int, progress: Progress, cancelled: Callable[[], bool]
    ) -> None:
        shutil.rmtree(path, ignore_errors=True)
        try:
            make_environment(path, runtime, lock, progress, cancelled)
            engines.place(path)
            manifest = Manifest(
                runtime=runtime.name,
                requirements=runtime.requirements,
                python=sys.version.split()[0],
                size_bytes=_size_bytes(path),
                installed_at=time.time(),
            )
            temporary = path / f".{MANIFEST}"
            temporary.write_bytes(msgspec.json.encode(manifest))
            temporary.rename(path / MANIFEST)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    @contextmanager
    def _locked(self, name: str, progress: Progress, cancelled: Callable[[], bool]) -> Iterator[int]:
        self._root.mkdir(parents=True, exist_ok=True)
        # The lock's file stays: removing it while another process waits on it would give two holders.
        descriptor = os.open(self._root / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            told = False
            while not _try_lock(descriptor):
                if cancelled():
                    raise Cancelled(f"The installation of {name} was cancelled.")
                if not told:
                    progress("Waiting for another process that installs the same.")
                    told = True
                time.sleep(_LOCK_POLL_S)
            yield descriptor
        finally:
            os.close(descriptor)

    def _require_room(self, runtime: Installable) -> None:
        free_bytes = shutil.disk_usage(self._root).free
        if free_bytes < runtime.disk_bytes:
            raise DiskFull(
                f"There is no room for the runtime {runtime.name} in {self._root}.",
                evidence=f"It takes about {runtime.disk_bytes:,} bytes while it is made; {free_bytes:,} are free.",
                fix="`headrace clean` shows what can go; or set HEADRACE_RUNTIMES_DIR to a folder on a larger disk.",
            )

    def _why_missing(self, runtime: Installable, path: Path) -> str:
        if path.exists():
            return "An installation was begun and is not complete."
        others = ", ".join(other.name for other in self._all(runtime))
        return f"Other pins or another Python than this version of Headrace needs: {others}." if others else ""


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pins(requirements: str) -> dict[str, str]:
    return {name.lower().replace("_", "-"): version for name, version in _PIN.findall(requirements)}


def _versions(path: Path, requirements: str) -> dict[str, str]:
    """Versions of the pinned packages, from their metadata on the disk."""
    folders = [str(folder) for folder in path.glob("lib/python*/site-packages")]
    found = {
        str(distribution.name).lower().replace("_", "-"): distribution.version
        for distribution in importlib.metadata.distributions(path=folders)
    }
    return {name: found[name] for name in _pins(requirements) if name in found}


def _mismatch(versions: dict[str, str], requirements: str, stamps: list[str]) -> str:
    # A build's local label, as in 2.13.0+cpu, is within the pin 2.13.0 (PEP 440).
    wrong = [
        f"{name} is {versions.get(name, 'missing')}, pinned {pinned}"
        for name, pinned in _pins(requirements).items()
        if pinned not in {versions.get(name), versions.get(name, "").partition("+")[0]}
    ]
    if engines.stamp() not in stamps:
        wrong.append(f"its engines are {', '.join(stamps) or 'missing'}, this Headrace ships {engines.stamp()}")
    return "; ".join(wrong)


def _size_bytes(path: Path) -> int:
    """What the folder takes on the disk."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total
