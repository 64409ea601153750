"""How a command ends: exit codes that scripts can trust, and errors as people and scripts read them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import msgspec

from headrace.cli.output import visible
from headrace.resources.errors import (
    CODES,
    ArtifactsNotFound,
    Failure,
    HeadraceError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    error_from,
)


class ExitCode(IntEnum):
    """What a command's exit status means; the same for all commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_AUTHORISED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


EXIT_CODES_LINE = (
    "Exit codes: 0 done; 1 it failed; 2 wrong usage; 3 not found; 4 not authorised; "
    "5 server unreachable or not ready; 130 Ctrl-C."
)

USAGE = "USAGE"
"""The code of a wrong command line; it has no page, `--help` is."""

_BY_BRANCH: tuple[tuple[type[HeadraceError], ExitCode], ...] = (
    (InvalidArgument, ExitCode.USAGE),
    (NotFound, ExitCode.NOT_FOUND),
    (ArtifactsNotFound, ExitCode.NOT_FOUND),
    (Unauthenticated, ExitCode.NOT_AUTHORISED),
    (PermissionDenied, ExitCode.NOT_AUTHORISED),
    (Unavailable, ExitCode.UNREACHABLE),
)


class WrongUsage(Exception):
    """The command line lacks something that the parser cannot know: exit code 2, and the code of all wrong usage."""

    def __init__(self, message: str, *, evidence: str, fix: str) -> None:
        super().__init__(message)
        self.failure = Failure(code=USAGE, message=message, evidence=evidence, fix=fix)


class WorkFailed(Exception):
    """The server did what was asked for, and it did not work out: exit code 1, whatever the reason's code.

    Raised for a deployment that is FAILED, so that e.g. ENGINE_DIED does not read as "the server cannot be reached".
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.error = error_from(failure)


def exit_code_of(error: HeadraceError) -> ExitCode:
    """The exit code that an error ends a command with."""
    return next((code for branch, code in _BY_BRANCH if isinstance(error, branch)), ExitCode.FAILED)


def failure_in(found: Mapping[str, Any]) -> Failure:
    """A failure as the native API sends it, empty fields left out."""
    return Failure(**{field: found.get(field, "") for field in Failure.__struct_fields__})


def report(failure: Failure, *, as_json: bool) -> None:
    """Say on stderr what went wrong: code and message, evidence, fix, where to read more."""
    if as_json:
        print(msgspec.json.encode({"error": msgspec.to_builtins(failure)}).decode(), file=sys.stderr)
        return
    print(visible(text_of(failure)), file=sys.stderr)


def text_of(failure: Failure) -> str:
    """A failure as lines for a person."""
    lines = [f"error {failure.code}: {failure.message}"]
    if failure.evidence:
        lines += _indented("evidence", failure.evidence)
    if failure.fix:
        lines += _indented("fix", failure.fix)
    if failure.code in CODES:
        lines.append(f"  more: headrace explain {failure.code}")
    return "\n".join(lines)


def _indented(label: str, text: str) -> list[str]:
    first, *rest = text.splitlines() or [""]
    return [f"  {label}: {first}", *(f"    {line}" for line in rest)]
