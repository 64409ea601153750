"""One thing that is wrong or odd about a folder, and how a check that fails becomes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from headrace.resources.errors import ArtifactsNotFound, HeadraceError

T = TypeVar("T")
Severity = Literal["error", "warning"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong or odd about a folder.

    Attributes:
        code: A key of `headrace.resources.errors.CODES`.
        severity: An error keeps the model from being deployed; a warning tells what is lost.
        message: One sentence.
        file: The file that it is about; empty for the folder as a whole.
        evidence: What was seen.
        fix: What to do.
    """

    code: str
    severity: Severity
    message: str
    file: str = ""
    evidence: str = ""
    fix: str = ""


def finding_of(error: HeadraceError, file: str = "", severity: Severity = "error") -> Finding:
    """An exception as the finding of its code."""
    return Finding(error.code, severity, error.message, file, error.evidence, error.fix)


def attempt(step: Callable[[], T], file: str, found: list[Finding], severity: Severity = "error") -> T | None:
    """What a step returns; what it raises is added to ``found``.

    Raises:
        ArtifactsNotFound: The reader cannot read any more.
    """
    try:
        return step()
    except ArtifactsNotFound:
        raise
    except HeadraceError as error:
        found.append(finding_of(error, file, severity))
        return None
