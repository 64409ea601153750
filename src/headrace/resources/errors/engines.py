"""What goes wrong with runtimes, with their engines, and with external servers."""

from __future__ import annotations

from headrace.resources.errors.tree import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)


class RuntimeUnknown(InvalidArgument):
    """No runtime has this name."""

    code = "RUNTIME_UNKNOWN"


class RuntimeUnsuitable(FailedPrecondition):
    """The runtime that was asked for, or every one, knows the architecture and cannot serve the model as asked for."""

    code = "RUNTIME_UNSUITABLE"


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


class EngineKvCacheTooSmall(ResourceExhausted):
    """The memory for the key-value cache does not hold one request of full length."""

    code = "ENGINE_KV_CACHE_TOO_SMALL"
    http_status = 503


class EngineSharedMemory(ResourceExhausted):
    """There is too little shared memory for the engine's processes."""

    code = "ENGINE_SHARED_MEMORY"
    http_status = 503


class EngineContextTooLong(FailedPrecondition):
    """The context asked for is longer than the one that the model was made for."""

    code = "ENGINE_CONTEXT_TOO_LONG"


class EngineSocketTaken(Unavailable):
    """Another engine listens on the socket that this one was to use."""

    code = "ENGINE_SOCKET_TAKEN"


class EngineDied(Unavailable):
    """The engine's process ended by itself, for a reason its output does not name."""

    code = "ENGINE_DIED"


class EngineStartTimeout(DeadlineExceeded):
    """The engine did not become healthy within its startup deadline."""

    code = "ENGINE_START_TIMEOUT"


class EngineWarmupFailed(FailedPrecondition):
    """The engine says that it is healthy and yet cannot generate."""

    code = "ENGINE_WARMUP_FAILED"


class EngineSleepFailed(Unavailable):
    """The engine was told to fall asleep or to wake, and did not."""

    code = "ENGINE_SLEEP_FAILED"


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


class ClientTimeout(EngineTimeout):
    """The time was over that an impatient client gives its request, before an engine had begun the answer."""

    code = "CLIENT_TIMEOUT"


class EngineStalled(DeadlineExceeded):
    """The engine began its answer, and then nothing more of it came for too long."""

    code = "ENGINE_STALLED"


class ExternalAddressForbidden(PermissionDenied):
    """An external server may not be at this address."""

    code = "EXTERNAL_ADDRESS_FORBIDDEN"


class ExternalUnreachable(Unavailable):
    """An external server does not accept connections, or broke one before its answer began."""

    code = "EXTERNAL_UNREACHABLE"


class ExternalTlsInvalid(FailedPrecondition):
    """An external server's certificate cannot be trusted, or it does not speak TLS."""

    code = "EXTERNAL_TLS_INVALID"
    http_status = 502


class ExternalRefused(FailedPrecondition):
    """An external server refuses the key that the deployment has for it."""

    code = "EXTERNAL_REFUSED"
    http_status = 502


class ExternalModelMissing(FailedPrecondition):
    """An external server does not have the model that the deployment names."""

    code = "EXTERNAL_MODEL_MISSING"
    http_status = 502


class ExternalNotOpenAI(FailedPrecondition):
    """What answers at an external server's base URL does not speak OpenAI's wire."""

    code = "EXTERNAL_NOT_OPENAI"
    http_status = 502
