"""What the failure of a replica means for its deployment: give up, or try again, and when."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.resources.deployments import Replica, Transition
from headrace.resources.errors import CODES, FailedPrecondition, Failure, InvalidArgument, ResourceExhausted
from headrace.resources.states import ReplicaState

ATTEMPTS = 2
"""Failed replicas after which a deployment that never was READY is given up."""

LONGEST_DELAY_S = 60.0
STABLE_AFTER_S = 300.0
"""A replica that was READY for as long counts as a success: the delays start again from none."""

KEPT_FAILURES = 5
"""Dead replicas of a deployment whose records are kept: failure, exit status and last lines of output."""


def deterministic(failure: Failure) -> bool:
    """Whether the same would only happen again: the model or the machine is at fault, not the moment."""
    kind = CODES.get(failure.code)
    return kind is not None and issubclass(kind, FailedPrecondition | InvalidArgument | ResourceExhausted)


def hopeless(failed: Sequence[Replica]) -> Failure | None:
    """Why a deployment that never was READY should be given up, or None while another attempt is worth it."""
    newest_first = sorted(failed, key=lambda replica: -replica.epoch)
    failures = [replica.failure for replica in newest_first if replica.failure is not None]
    for failure in failures:
        if deterministic(failure):
            return failure
    return failures[0] if len(failures) >= ATTEMPTS else None


def delay_s(restarts: int) -> float:
    """How long to wait before the next replacement: none at first, then 1, 2, 4, … up to a minute."""
    return 0.0 if restarts <= 0 else float(min(LONGEST_DELAY_S, 2 ** (min(restarts, 16) - 1)))


def was_stable(timeline: Sequence[Transition]) -> bool:
    """Whether a dead replica had been READY for long."""
    ready = [move.at for move in timeline if move.state == ReplicaState.READY]
    return bool(ready) and timeline[-1].at - ready[0] >= STABLE_AFTER_S
