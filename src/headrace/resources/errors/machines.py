"""What a machine lacks."""

from __future__ import annotations

from headrace.resources.errors.tree import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)


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


class QuotaExceeded(ResourceExhausted):
    """The project's quota has no room for another deployment of this size."""

    code = "QUOTA_EXCEEDED"


class MachineGaps(FailedPrecondition):
    """This machine lacks something that Headrace needs."""

    code = "MACHINE_GAPS"


class CalibrationFailed(FailedPrecondition):
    """This machine could not be measured."""

    code = "CALIBRATION_FAILED"


class ProfileTooSmall(InvalidArgument):
    """Too little was measured of a replica to tell what costs it what."""

    code = "PROFILE_TOO_SMALL"


class NotOptimizable(InvalidArgument):
    """No throughput of the model can be stated, and so none can be sold."""

    code = "NOT_OPTIMIZABLE"


class ThroughputTooHigh(InvalidArgument):
    """The throughput asked for is more than the machines could ever carry, were they empty."""

    code = "THROUGHPUT_TOO_HIGH"


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


class DatabaseAway(Unavailable):
    """The database server cannot be reached, or is too busy; inference goes on."""

    code = "DATABASE_AWAY"


class TlsCertificateInvalid(FailedPrecondition):
    """A TLS certificate and its key cannot be used: unreadable, no pair, or run out."""

    code = "TLS_CERTIFICATE_INVALID"


class TlsAuthorityNotFound(NotFound):
    """The data directory has no private certificate authority."""

    code = "TLS_AUTHORITY_NOT_FOUND"
