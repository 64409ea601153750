"""Everything that can go wrong and that a user can meet, as one tree.

    HeadraceError
    ├── InvalidArgument      400  the request itself is wrong
    ├── Unauthenticated      401  no key, or one that is unknown or revoked
    ├── PermissionDenied     403  the key is known and its role does not reach
    ├── NotFound             404  no such resource, or no such path
    ├── AlreadyExists        409  the name is taken
    ├── Aborted              409  somebody else changed it first (compare-and-set)
    ├── FailedPrecondition   400  right request, wrong state of the world: bad weights, a model in use
    ├── ResourceExhausted    429  memory, disk, quota, a full queue
    ├── TooLarge             413  a body over its limit
    ├── Unavailable          503  nothing can answer now; a retry may help
    ├── DeadlineExceeded     504  it took longer than allowed
    └── Internal             500  our fault

A leaf of the tree is one line: its stable code and what it means. Each code has a page of the same name in
``resources/pages/`` (``headrace explain CODE`` prints it). The status names are those of ``google.rpc.Code``, which
every contract can be translated to; numbers are gRPC's, HTTP codes as in ``google/rpc/code.proto``.
"""

from __future__ import annotations

from importlib.resources import files
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
    """A failure on its way up. Raise a leaf of the tree; catch a branch."""

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


def error_from(failure: Failure) -> HeadraceError:
    """The exception that a stored or received failure stands for; an unknown code becomes `InternalError`."""
    return CODES.get(failure.code, InternalError)(failure.message, evidence=failure.evidence, fix=failure.fix)


def page(code: str) -> str:
    """The page of an error code, as Markdown.

    Raises:
        UnknownErrorCode: There is no such code.
    """
    if code not in CODES:
        raise UnknownErrorCode(f"There is no error code {code!r}.", fix="`headrace explain` lists every code.")
    return (files(__package__) / "pages" / f"{code}.md").read_text(encoding="utf-8")


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


# --- requests -------------------------------------------------------------------------------------------------------


class BadJson(InvalidArgument):
    """The body is not the JSON that this method takes."""

    code = "BAD_JSON"


class MalformedRequest(InvalidArgument):
    """What came is not an HTTP request, or one that two readers could take differently."""

    code = "MALFORMED_REQUEST"


class BadField(InvalidArgument):
    """A field is missing, unknown, or of the wrong type or value."""

    code = "BAD_FIELD"


class BadName(InvalidArgument):
    """A resource name or identifier is not well formed."""

    code = "BAD_NAME"


class UnknownPath(NotFound):
    """No route has this path."""

    code = "UNKNOWN_PATH"


class UnknownErrorCode(NotFound):
    """`headrace explain` was asked for a code that does not exist."""

    code = "UNKNOWN_ERROR_CODE"


class MethodNotAllowed(InvalidArgument):
    """The path exists, with another HTTP method."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405


class BodyTooLarge(TooLarge):
    """The request body is over the limit of this route."""

    code = "BODY_TOO_LARGE"


class HeadersTooLarge(TooLarge):
    """The request's headers are over the limit."""

    code = "HEADERS_TOO_LARGE"
    http_status = 431


# --- who may do what ------------------------------------------------------------------------------------------------


class NoKey(Unauthenticated):
    """The request carries no key."""

    code = "NO_KEY"


class UnknownKey(Unauthenticated):
    """The key is unknown or was revoked."""

    code = "UNKNOWN_KEY"


class RoleMissing(PermissionDenied):
    """The key's role does not allow this, or not in this project."""

    code = "ROLE_MISSING"


# --- resources ------------------------------------------------------------------------------------------------------


class ModelNotFound(NotFound):
    """No such model, or no such version of it."""

    code = "MODEL_NOT_FOUND"


class EndpointNotFound(NotFound):
    """No such endpoint."""

    code = "ENDPOINT_NOT_FOUND"


class DeploymentNotFound(NotFound):
    """No such deployment."""

    code = "DEPLOYMENT_NOT_FOUND"


class OperationNotFound(NotFound):
    """No such operation, or it is so old that it was forgotten."""

    code = "OPERATION_NOT_FOUND"


class KeyNotFound(NotFound):
    """No key has this id."""

    code = "KEY_NOT_FOUND"


class ReplicaNotFound(NotFound):
    """No such replica."""

    code = "REPLICA_NOT_FOUND"


class NameTaken(AlreadyExists):
    """The identifier asked for is in use."""

    code = "NAME_TAKEN"


class StaleWrite(Aborted):
    """The resource changed between the read and the write (its ``resource_version`` moved on)."""

    code = "STALE_WRITE"


class IllegalMove(FailedPrecondition):
    """The resource's state has no move to the state asked for."""

    code = "ILLEGAL_MOVE"


class StillInUse(FailedPrecondition):
    """It cannot be deleted while something uses it."""

    code = "STILL_IN_USE"


class DeployTimeout(DeadlineExceeded):
    """The deployment did not become ready before its deadline."""

    code = "DEPLOY_TIMEOUT"


class Cancelled(FailedPrecondition):
    """The work was cancelled by a user before it was done."""

    code = "CANCELLED"


# --- weights --------------------------------------------------------------------------------------------------------


class ArtifactsNotFound(FailedPrecondition):
    """The weights' address leads nowhere, or may not be read."""

    code = "ARTIFACTS_NOT_FOUND"


class SchemeNotSupported(FailedPrecondition):
    """The weights' address has a scheme for which no driver is installed."""

    code = "SCHEME_NOT_SUPPORTED"


class ConfigMissing(FailedPrecondition):
    """The folder has no ``config.json``."""

    code = "CONFIG_MISSING"


class ConfigInvalid(FailedPrecondition):
    """``config.json`` is not JSON, or lacks what every model needs."""

    code = "CONFIG_INVALID"


class WeightsMissing(FailedPrecondition):
    """The folder has no weights, or its index names files that are not there."""

    code = "WEIGHTS_MISSING"


class WeightsTruncated(FailedPrecondition):
    """A safetensors file is shorter than its header says."""

    code = "WEIGHTS_TRUNCATED"


class WeightsCorrupt(FailedPrecondition):
    """A safetensors header cannot be what a writer of the format wrote."""

    code = "WEIGHTS_CORRUPT"


class WeightsQuantised(FailedPrecondition):
    """The weights are quantised; import takes 16- and 32-bit floating point."""

    code = "WEIGHTS_QUANTISED"


class TokenizerMissing(FailedPrecondition):
    """The folder has no tokenizer."""

    code = "TOKENIZER_MISSING"


class TokenizerInvalid(FailedPrecondition):
    """The folder's tokenizer cannot be read."""

    code = "TOKENIZER_INVALID"


class ArchitectureUnsupported(FailedPrecondition):
    """No installed runtime knows the model's architecture."""

    code = "ARCHITECTURE_UNSUPPORTED"


class ArtifactsChanged(FailedPrecondition):
    """The files at the weights' address are no longer those that were registered."""

    code = "ARTIFACTS_CHANGED"


class ArtifactsRefused(FailedPrecondition):
    """A file at the weights' address leads out of its folder, or is not one that may be read."""

    code = "ARTIFACTS_REFUSED"


class WeightsPickled(FailedPrecondition):
    """The weights are pickles (``*.bin``), which are not looked into."""

    code = "WEIGHTS_PICKLED"


class ChatTemplateMissing(FailedPrecondition):
    """The tokenizer has no chat template: a base model, or a template that was left behind."""

    code = "CHAT_TEMPLATE_MISSING"


class CustomCodeIgnored(FailedPrecondition):
    """The folder brings Python code of its own, which is never executed."""

    code = "CUSTOM_CODE_IGNORED"


class ConversionFailed(FailedPrecondition):
    """The weights could not be converted to the format that the runtime reads."""

    code = "CONVERSION_FAILED"


# --- machines -------------------------------------------------------------------------------------------------------


class DoesNotFit(ResourceExhausted):
    """The model needs more memory than the machine has."""

    code = "DOES_NOT_FIT"
    http_status = 400


class NoCapacity(ResourceExhausted):
    """The model would fit the machine, were the memory not taken by others."""

    code = "NO_CAPACITY"


class NoNode(Unavailable):
    """No serving node reports to the control plane."""

    code = "NO_NODE"


class DiskFull(ResourceExhausted):
    """There is not enough disk."""

    code = "DISK_FULL"
    http_status = 507


class MachineSpecIncomplete(InvalidArgument):
    """Machine type, accelerator type and accelerator count go together: all three or none."""

    code = "MACHINE_SPEC_INCOMPLETE"


class MachineGaps(FailedPrecondition):
    """This machine lacks something that Headrace needs."""

    code = "MACHINE_GAPS"


class PortTaken(FailedPrecondition):
    """Another program listens on the port."""

    code = "PORT_TAKEN"


class DataDirInUse(FailedPrecondition):
    """Another `headrace serve` runs on the same data directory."""

    code = "DATA_DIR_IN_USE"


class DataDirUnusable(FailedPrecondition):
    """The data directory cannot be made, read or written, or holds a folder where a file should be."""

    code = "DATA_DIR_UNUSABLE"


class DatabaseCorrupt(FailedPrecondition):
    """The database file is damaged, or is no database."""

    code = "DATABASE_CORRUPT"


# --- runtimes and engines -------------------------------------------------------------------------------------------


class RuntimeUnknown(InvalidArgument):
    """No runtime has this name."""

    code = "RUNTIME_UNKNOWN"


class RuntimeInstallFailed(FailedPrecondition):
    """The runtime's environment could not be made."""

    code = "RUNTIME_INSTALL_FAILED"


class EngineOutOfMemory(ResourceExhausted):
    """The engine ran out of memory."""

    code = "ENGINE_OUT_OF_MEMORY"
    http_status = 503


class EngineUnsupportedArchitecture(FailedPrecondition):
    """The engine does not know the model's architecture."""

    code = "ENGINE_UNSUPPORTED_ARCHITECTURE"


class EngineBadTensor(FailedPrecondition):
    """The engine found a tensor that does not fit the model's configuration."""

    code = "ENGINE_BAD_TENSOR"


class EngineDied(Unavailable):
    """The engine's process ended by itself, for a reason its output does not name."""

    code = "ENGINE_DIED"


class EngineStartTimeout(DeadlineExceeded):
    """The engine did not become healthy within its startup deadline."""

    code = "ENGINE_START_TIMEOUT"


class EngineWarmupFailed(FailedPrecondition):
    """The engine says that it is healthy and yet cannot generate."""

    code = "ENGINE_WARMUP_FAILED"


class EngineUnreachable(Unavailable):
    """The engine does not accept connections, or broke one before its answer began."""

    code = "ENGINE_UNREACHABLE"


class EngineBrokeOff(Unavailable):
    """The engine ended in the middle of a streamed answer."""

    code = "ENGINE_BROKE_OFF"


class EngineRefused(InvalidArgument):
    """The engine read the request and refuses it; the message is its own."""

    code = "ENGINE_REFUSED"


class EngineFailed(Unavailable):
    """The engine answered with an error that is not the request's fault."""

    code = "ENGINE_FAILED"


class EngineTimeout(DeadlineExceeded):
    """The engine did not begin its answer within the first-byte deadline."""

    code = "ENGINE_TIMEOUT"


# --- serving --------------------------------------------------------------------------------------------------------


class NotReady(Unavailable):
    """The endpoint has nothing deployed that is ready."""

    code = "NOT_READY"


class QueueFull(ResourceExhausted):
    """More requests wait for this deployment than its waiting room holds."""

    code = "QUEUE_FULL"


class QueueTimeout(ResourceExhausted):
    """The request waited for its turn longer than allowed."""

    code = "QUEUE_TIMEOUT"
    http_status = 503


class Draining(Unavailable):
    """The server is going down and takes no new requests."""

    code = "DRAINING"


class ControlPlaneDown(Unavailable):
    """The gateway cannot reach the control plane; inference goes on."""

    code = "CONTROL_PLANE_DOWN"


class NotSupported(FailedPrecondition):
    """The method exists in the vendor's API and not (yet) here."""

    code = "NOT_SUPPORTED"
    status, grpc_code, http_status = "UNIMPLEMENTED", 12, 501


# --- the command line -----------------------------------------------------------------------------------------------


class ServerUnreachable(Unavailable):
    """A command could not talk to the server at its address."""

    code = "SERVER_UNREACHABLE"


class NotLoggedIn(Unauthenticated):
    """A command does not know which server to talk to, or has no key for it."""

    code = "NOT_LOGGED_IN"


class ServerStartFailed(Internal):
    """The server that `headrace quickstart` started ended, or did not become ready in time."""

    code = "SERVER_START_FAILED"


class AnswerNotStreamed(Internal):
    """`headrace quickstart` got an answer that did not come in pieces."""

    code = "ANSWER_NOT_STREAMED"


class WaitTimeout(DeadlineExceeded):
    """A command stopped waiting; the work goes on in the server."""

    code = "WAIT_TIMEOUT"


class InternalError(Internal):
    """A defect in Headrace."""

    code = "INTERNAL"
