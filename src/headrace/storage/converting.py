"""A folder here written anew in the form that every engine loads, and looked over before anybody gets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headrace.resources.errors import ConversionFailed
from headrace.storage.local import LocalArtifacts
from headrace.weights import check
from headrace.weights.conversion import FolderPlan, write_folder


def convert_folder(
    plan: FolderPlan,
    source: Path,
    target: Path,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Carry out a plan in an empty folder.

    Raises:
        ConversionFailed: What came out is not a model that could be deployed.
        HeadraceError: As `write_folder`.
    """
    write_folder(plan, source, target, progress, cancelled)
    require_sound(target)


def require_sound(target: Path) -> None:
    """Hold that the doctor finds no error in a converted folder.

    Raises:
        ConversionFailed: It does.
    """
    for finding in check(LocalArtifacts(str(target), target)):
        if finding.severity == "error":
            raise ConversionFailed(
                f"The converted model could not be deployed: {finding.message}",
                evidence=f"{finding.code}: {finding.evidence}",
                fix=finding.fix,
            )
