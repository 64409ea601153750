"""Why there is no answer now, and what commands run into."""

from __future__ import annotations

from headrace.resources.errors.tree import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)


class NotReady(Unavailable):
    """The endpoint has nothing deployed that is ready."""

    code = "NOT_READY"


class FailedForGood(NotReady):
    """What is deployed there failed, and does not come back by itself."""

    lasting = True


class QueueFull(ResourceExhausted):
    """More requests wait for this deployment than its waiting room holds."""

    code = "QUEUE_FULL"


class QueueTimeout(ResourceExhausted):
    """The request waited for its turn longer than allowed."""

    code = "QUEUE_TIMEOUT"
    http_status = 503


class KeyLimited(ResourceExhausted):
    """A key has a limit, and this request does not fit into it.

    Attributes:
        headers: What an answer with it says of the key's limits, as HTTP has it.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()


class KeyLimitReached(KeyLimited):
    """The key's requests used its limit of requests or tokens per minute, or have it reserved."""

    code = "KEY_LIMIT_REACHED"


class KeyLimitTooSmall(KeyLimited):
    """The request needs more than the key may use in a whole minute: it never fits."""

    code = "KEY_LIMIT_TOO_SMALL"
    lasting = True


class EndpointLimitReached(KeyLimitReached):
    """The endpoint has a limit, of all keys or of each, and requests used it within a minute, or have it reserved."""

    code = "ENDPOINT_LIMIT_REACHED"


class EndpointLimitTooSmall(KeyLimitTooSmall):
    """The request needs more than the endpoint's limit allows in a whole minute: it never fits."""

    code = "ENDPOINT_LIMIT_TOO_SMALL"


class ThroughputExceeded(ResourceExhausted):
    """The deployed model's requests used all that it was sold for a minute, or have it reserved."""

    code = "THROUGHPUT_EXCEEDED"


class Draining(Unavailable):
    """The server is going down and takes no new requests."""

    code = "DRAINING"


class TooManyConnections(Unavailable):
    """The gateway holds as many clients' connections as its limit of open files allows."""

    code = "TOO_MANY_CONNECTIONS"


class ControlPlaneDown(Unavailable):
    """The gateway cannot reach the control plane; inference goes on."""

    code = "CONTROL_PLANE_DOWN"


class NotSupported(FailedPrecondition):
    """The method exists in the vendor's API and not (yet) here."""

    code = "NOT_SUPPORTED"
    lasting = True
    status, grpc_code, http_status = "UNIMPLEMENTED", 12, 501


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
