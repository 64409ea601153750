"""Writes what a plan says into an empty folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from headrace.resources.errors import Cancelled
from headrace.weights.conversion.copying import copy_tensor, write_all
from headrace.weights.conversion.layout import PlannedFile
from headrace.weights.conversion.mark import write_mark
from headrace.weights.conversion.plan import FolderPlan

Progress = Callable[[int, int], None]
"""Called with the bytes written and in all; may raise to stop."""


def write_folder(
    plan: FolderPlan,
    source: Path,
    target: Path,
    progress: Progress = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Carry out a plan. The target is whole when this returns; if it raises, it is not.

    Args:
        plan: As `plan_folder` made it of the source.
        source: The folder.
        target: An empty one.
        progress: Told how far it is.
        cancelled: Asked after each piece of some MB.

    Raises:
        ArtifactsChanged: The source changed meanwhile.
        Cancelled: ``cancelled()`` became true.
        OSError: As the file systems have it; a full disk among others.
    """
    done_bytes = 0

    def told(count: int) -> None:
        nonlocal done_bytes
        done_bytes += count
        progress(done_bytes, plan.size_bytes)
        if cancelled():
            raise Cancelled("The conversion was cancelled.")

    for file in plan.files:
        _write_file(file, source, target, told)
    for name, linked in plan.linked.items():
        os.link((source / linked).resolve(), target / name)
    for name in plan.copied:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
        told((target / name).stat().st_size)
    for name, content in plan.small.items():
        (target / name).write_bytes(content)
    write_mark(target, plan.mark)


def _write_file(file: PlannedFile, source: Path, target: Path, told: Callable[[int], None]) -> None:
    with ExitStack() as opened:
        sources: dict[str, int] = {}
        for name in {tensor.source.file for tensor in file.tensors}:
            sources[name] = opened.enter_context((source / name).open("rb")).fileno()
        descriptor = os.open(target / file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        opened.callback(os.close, descriptor)
        write_all(descriptor, file.header())
        for tensor in file.tensors:
            copy_tensor(tensor, sources[tensor.source.file], descriptor, told)
