"""The tree's trunk and branches; its leaves are in the other modules of this package."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong, as stored in a row, sent between processes and shown to a person.

    Attributes:
        code: Stable name, e.g. ``WEIGHTS_TRUNCATED``; a key of `CODES`.
        message: One sentence: what happened, to what.
        evidence: What was seen that proves it: a number, a file, a log line.
        fix: What to do about it.
    """

    code: str
    message: str
    evidence: str = ""
    fix: str = ""


CODES: dict[str, type[HeadraceError]] = {}
"""Every stable code and the class that carries it."""


class HeadraceError(Exception):
    """A failure on its way up. Raise a leaf of the tree; catch a branch.

    Attributes:
        lasting: Whether the same request meets it again until a person changes something, although its HTTP status is
            one that clients take for passing (429, 5xx).
    """

    lasting: ClassVar[bool] = False
    status: ClassVar[str] = "INTERNAL"
    grpc_code: ClassVar[int] = 13
    http_status: ClassVar[int] = 500
    code: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" in cls.__dict__:
            CODES[cls.code] = cls

    def __init__(self, message: str, *, evidence: str = "", fix: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.evidence = evidence
        self.fix = fix
        self.retry_after_s = retry_after_s

    @property
    def failure(self) -> Failure:
        """The same as a value that can be stored and sent."""
        return Failure(code=self.code, message=self.message, evidence=self.evidence, fix=self.fix)

    def __str__(self) -> str:
        parts = [self.message]
        if self.evidence:
            parts.append(f"Evidence: {self.evidence}")
        if self.fix:
            parts.append(f"Fix: {self.fix}")
        return " ".join(parts)


class InvalidArgument(HeadraceError):
    """The request itself is wrong, whatever the state of the world."""

    status, grpc_code, http_status = "INVALID_ARGUMENT", 3, 400


class Unauthenticated(HeadraceError):
    """Nobody we know."""

    status, grpc_code, http_status = "UNAUTHENTICATED", 16, 401


class PermissionDenied(HeadraceError):
    """Somebody we know, who may not."""

    status, grpc_code, http_status = "PERMISSION_DENIED", 7, 403


class NotFound(HeadraceError):
    """It is not there."""

    status, grpc_code, http_status = "NOT_FOUND", 5, 404


class AlreadyExists(HeadraceError):
    """It is there already."""

    status, grpc_code, http_status = "ALREADY_EXISTS", 6, 409


class Aborted(HeadraceError):
    """Somebody else was first; read again and retry."""

    status, grpc_code, http_status = "ABORTED", 10, 409


class FailedPrecondition(HeadraceError):
    """The request is right and the state of the world is not."""

    status, grpc_code, http_status = "FAILED_PRECONDITION", 9, 400


class ResourceExhausted(HeadraceError):
    """Something finite ran out."""

    status, grpc_code, http_status = "RESOURCE_EXHAUSTED", 8, 429


class TooLarge(HeadraceError):
    """A body is over its limit. gRPC has no code of its own for it: OUT_OF_RANGE."""

    status, grpc_code, http_status = "OUT_OF_RANGE", 11, 413


class Unavailable(HeadraceError):
    """Nothing can answer now; the same request may work later."""

    status, grpc_code, http_status = "UNAVAILABLE", 14, 503


class DeadlineExceeded(HeadraceError):
    """It took longer than allowed."""

    status, grpc_code, http_status = "DEADLINE_EXCEEDED", 4, 504


class Internal(HeadraceError):
    """Our fault."""

    status, grpc_code, http_status = "INTERNAL", 13, 500
