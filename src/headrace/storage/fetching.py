"""A folder of a store, here for as long as something is made of it: beside what is made, under a hidden name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.resources.errors import ArtifactsNotFound, DestinationNotEmpty
from headrace.storage.artifacts import Artifacts
from headrace.storage.staging import Progress, stage
from headrace.storage.whole import held, require_new, taken_bytes


@contextmanager
def fetched(artifacts: Artifacts, destination: Path, needed_bytes: int, progress: Progress) -> Iterator[Path]:
    """The files, whole and held against the store's checksums; they are gone when this ends.

    What came of them stays where the store is lost or this process killed, so that the same attempt goes on with it.

    Args:
        artifacts: Where they are.
        destination: What is made of them, a folder that there is not yet.
        needed_bytes: What that will take beside them.
        progress: Told how far the fetching is.

    Raises:
        ArtifactsNotFound: The store is lost.
        DestinationNotEmpty: There is something already, or another process is making it.
        DiskFull: Both have no room together, before the first byte.
        HeadraceError: As `stage`.
    """
    root = destination.with_name(f".{destination.name}.source")
    require_new(destination, max(0, artifacts.total_bytes - taken_bytes(root)) + needed_bytes)
    root.mkdir(exist_ok=True)
    with held(root) as mine:
        if not mine:
            raise DestinationNotEmpty(
                f"Another conversion is making {destination}.",
                evidence=f"It holds {root.name} beside it.",
                fix="Wait for it, or name another folder.",
            )
        keep = False
        try:
            try:
                folder = stage(artifacts, root, progress)
            except ArtifactsNotFound:
                keep = True
                raise
            yield folder
        finally:
            if not keep:
                shutil.rmtree(root, ignore_errors=True)
