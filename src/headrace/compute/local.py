"""Engines as processes of this machine, each behind its shim."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import msgspec

import headrace
from headrace.compute.backend import EngineSpec
from headrace.compute.process import LocalProcess
from headrace.compute.shim import record
from headrace.resources.errors import EngineDied
from headrace.resources.layout import Layout

_IMPORT_ROOT = Path(headrace.__file__).parents[1]
_HELD_RETRY_S = 0.05
_KEPT_DEAD = 20


class LocalBackend:
    """Starts shims, finds those of earlier nodes, and replaces those that were killed.

    Args:
        layout: Where replicas' folders and sockets are.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def start(self, spec: EngineSpec) -> LocalProcess:
        """Start an engine behind a shim of its own.

        Raises:
            EngineDied: The shim could not be started, or this replica was started before.
        """
        directory = self._layout.replica_dir(spec.id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._layout.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (directory / record.SPEC).exists():
            raise EngineDied(f"Replica {spec.id} was started before.", evidence=f"{directory / record.SPEC} exists.")
        sockets = {
            "engine_socket": str(self._layout.engine_socket(spec.id)),
            "shim_socket": str(self._layout.shim_socket(spec.id)),
        }
        record.write_json(str(directory / record.SPEC), msgspec.to_builtins(spec) | sockets | {"cwd": str(directory)})
        return_code, said = await _run_shim(directory, adopt=False)
        if return_code != 0:
            raise EngineDied(
                f"The shim of replica {spec.id} did not start.",
                evidence=_how_it_ended(return_code, said),
                fix=f"Its log is {directory / record.SHIM_LOG}.",
            )
        return await self._attach(directory)

    async def discover(self) -> list[LocalProcess]:
        """Every replica on record. Of a running one whose shim was killed, a new shim takes over."""
        directories = sorted(path.parent for path in self._replicas.glob(f"*/{record.SPEC}"))
        return [await self._attach(directory) for directory in directories]

    def sweep(self) -> None:
        """Remove the folders of dead replicas, all but those of the `_KEPT_DEAD` that ended last."""
        ends = sorted(self._replicas.glob(f"*/{record.EXIT}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for end in ends[_KEPT_DEAD:]:
            shutil.rmtree(end.parent, ignore_errors=True)

    @property
    def _replicas(self) -> Path:
        return self._layout.replica_dir("any").parent

    async def _attach(self, directory: Path) -> LocalProcess:
        process = LocalProcess(directory, adopt)
        await process.connect()
        return process


async def adopt(directory: Path) -> None:
    """Have a new shim take over a replica, or write down its end when there is nothing to take over.

    Raises:
        EngineDied: Neither was possible.
    """
    return_code, said = await _run_shim(directory, adopt=True)
    if return_code == record.HELD_STATUS:
        await asyncio.sleep(_HELD_RETRY_S)  # its shim is just starting, or just ending: the caller looks again
    elif return_code != 0 and not (directory / record.EXIT).exists():
        raise EngineDied(f"The engine in {directory} cannot be adopted.", evidence=_how_it_ended(return_code, said))


def _how_it_ended(return_code: int, said: str) -> str:
    """The evidence of a shim that failed: one that was killed says nothing itself."""
    if return_code >= 0:
        ended = f"It ended with status {return_code}."
    elif -return_code in set(signal.Signals):
        ended = f"It was ended by {signal.Signals(-return_code).name}."
    else:
        ended = f"It was ended by signal {-return_code}."
    return " ".join(part for part in (ended, said.strip()[-1000:]) if part)


async def _run_shim(directory: Path, *, adopt: bool) -> tuple[int, str]:
    flags = ["--adopt"] if adopt else []
    command = [sys.executable, "-S", "-P", "-m", "headrace.compute.shim", *flags, str(directory)]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(_IMPORT_ROOT), "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    _, said = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")
