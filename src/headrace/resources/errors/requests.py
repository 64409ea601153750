"""What is wrong with a request, with who sends it, or with the resources that it names."""

from __future__ import annotations

from headrace.resources.errors.tree import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    TooLarge,
    Unauthenticated,
)


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


class NamespaceNotFound(NotFound):
    """There is no catalog or schema of this name."""

    code = "NAMESPACE_NOT_FOUND"


class UploadNotFound(NotFound):
    """No file or folder of this path was uploaded."""

    code = "UPLOAD_NOT_FOUND"


class UnknownErrorCode(NotFound):
    """`headrace explain` was asked for a code that does not exist."""

    code = "UNKNOWN_ERROR_CODE"


class MethodNotAllowed(InvalidArgument):
    """The path exists, with another HTTP method.

    Attributes:
        allow: The methods that it takes, for the header of that name.
    """

    code = "METHOD_NOT_ALLOWED"
    http_status = 405

    def __init__(
        self,
        message: str,
        *,
        evidence: str = "",
        fix: str = "",
        retry_after_s: float | None = None,
        allow: tuple[str, ...] = (),
    ) -> None:
        told = f"The path takes {', '.join(allow)}." if allow else ""
        super().__init__(message, evidence=evidence or told, fix=fix, retry_after_s=retry_after_s)
        self.allow = allow


class BodyTooLarge(TooLarge):
    """The request body is over the limit of this route."""

    code = "BODY_TOO_LARGE"


class HeadersTooLarge(TooLarge):
    """The request's headers are over the limit."""

    code = "HEADERS_TOO_LARGE"
    http_status = 431


class RequestTooSlow(DeadlineExceeded):
    """The request's head did not come to its end in time, or its body stopped in its middle."""

    code = "REQUEST_TOO_SLOW"
    http_status = 408


class TlsExpected(InvalidArgument):
    """The request came unencrypted to a port that speaks TLS."""

    code = "TLS_EXPECTED"


class NoKey(Unauthenticated):
    """The request carries no key."""

    code = "NO_KEY"


class UnknownKey(Unauthenticated):
    """The key is unknown or was revoked."""

    code = "UNKNOWN_KEY"


class BadToken(Unauthenticated):
    """The signed token cannot be read, is signed by another key than it says, or claims what it may not."""

    code = "BAD_TOKEN"


class TokenExpired(Unauthenticated):
    """The signed token was good, and is no longer."""

    code = "TOKEN_EXPIRED"


class RoleMissing(PermissionDenied):
    """The key's role does not allow this, or not in this project."""

    code = "ROLE_MISSING"


class NotOnAccessList(PermissionDenied):
    """The endpoint or its changes are for those on its access list, and the key is not one of them."""

    code = "NOT_ON_ACCESS_LIST"


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


class CredentialsNotFound(NotFound):
    """The project has no credentials for the scheme."""

    code = "CREDENTIALS_NOT_FOUND"


class RolloutNotFound(NotFound):
    """No such rollout."""

    code = "ROLLOUT_NOT_FOUND"


class ProfileNotFound(NotFound):
    """No such profile."""

    code = "PROFILE_NOT_FOUND"


class ReplicaNotFound(NotFound):
    """No such replica."""

    code = "REPLICA_NOT_FOUND"


class NameAmbiguous(InvalidArgument):
    """Several have the display name that stands for one of them."""

    code = "NAME_AMBIGUOUS"


class NameTaken(AlreadyExists):
    """The identifier asked for is in use."""

    code = "NAME_TAKEN"


class StaleWrite(Aborted):
    """The resource changed between the read and the write (its ``resource_version`` moved on)."""

    code = "STALE_WRITE"


class UpdateRunning(Aborted):
    """The serving endpoint is on its way to another config, and takes no newer one before that holds."""

    code = "UPDATE_RUNNING"


class IllegalMove(FailedPrecondition):
    """The resource's state has no move to the state asked for."""

    code = "ILLEGAL_MOVE"


class StillInUse(FailedPrecondition):
    """It cannot be deleted, or turned off, while something uses it."""

    code = "STILL_IN_USE"


class RolloutRunning(FailedPrecondition):
    """A rollout decides on the endpoint's traffic, so nobody else may."""

    code = "ROLLOUT_RUNNING"


class RolloutRefused(FailedPrecondition):
    """A rollout cannot begin: there is no canary that answers, or nothing that it could take traffic from."""

    code = "ROLLOUT_REFUSED"


class CanaryOutOfBounds(FailedPrecondition):
    """More of a canary's requests failed or were slow than its rollout allows, so it was rolled back."""

    code = "CANARY_OUT_OF_BOUNDS"


class CanaryLost(FailedPrecondition):
    """A canary lost all its engines in the middle of its rollout, so it was rolled back."""

    code = "CANARY_LOST"


class DeployTimeout(DeadlineExceeded):
    """The deployment did not become ready before its deadline."""

    code = "DEPLOY_TIMEOUT"


class Cancelled(FailedPrecondition):
    """The work was cancelled by a user before it was done."""

    code = "CANCELLED"
