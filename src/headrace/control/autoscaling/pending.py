"""What keeps a pool smaller than it should be: what is missing, where, and until when that is tried again."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from headrace.control.guarantees import ready_replicas, until_of, waiting_on
from headrace.control.placement import home, no_room
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.errors import Failure, NoNode
from headrace.resources.operations import Operation
from headrace.resources.states import DeploymentState, OperationState, ReplicaState
from headrace.store import Transaction

_COMING = (ReplicaState.PLACED, ReplicaState.STARTING, ReplicaState.WARMING, ReplicaState.WAKING)

_BEFORE_PLACES = frozenset({DeploymentState.ACCEPTED, DeploymentState.CHECKING, DeploymentState.STAGING})

_WAITS_FOR_NOTHING = frozenset(
    {DeploymentState.ASLEEP, DeploymentState.FAILED, DeploymentState.DRAINING, DeploymentState.GONE}
)

_LAST_S = datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp()


def tell_pending(tx: Transaction, deployment: Deployment, told: str) -> Deployment:
    """Write down what replicas wait for; empty: nothing. One whose number is fixed has only its timeline for that."""
    scaling = deployment.scaling
    if scaling is None or scaling.pending == told:
        return deployment
    return tx.update(msgspec.structs.replace(deployment, scaling=msgspec.structs.replace(scaling, pending=told)))


def lacking(tx: Transaction, deployment: Deployment) -> Failure | None:
    """What keeps one more replica from being placed now; None: nothing does."""
    node = home(tx)
    if node is None:
        return NoNode(
            "No serving node has reported.", fix="`headrace status` shows the nodes; a node's log tells why."
        ).failure
    return no_room(tx, node, deployment)


def pending_text(tx: Transaction, deployment: Deployment) -> str:
    """What a deployment waits for, on which machine and until when, as one text for a person; empty: for nothing.

    The same sentence is the error of a deploy, or of a change of its throughput, whose time runs out.
    """
    if deployment.state in _WAITS_FOR_NOTHING:
        return ""
    ready, wanted = ready_replicas(tx, deployment), deployment.wanted_replicas
    if ready >= wanted:
        return ""
    if deployment.state in _BEFORE_PLACES:
        last = tx.timelines.newest("deployment", deployment.id)
        until = _until(tx, deployment)
        left = f"It has until {_time(until)} to be READY." if until is not None else ""
        return " ".join(part for part in (f"It is {deployment.state}.", last.detail, left) if part)
    told = f"{ready} of {wanted} replicas serve. {_why(tx, deployment, wanted, wanted - ready)}"
    return " ".join(part for part in (told, retried(tx, deployment)) if part)


def retried(tx: Transaction, deployment: Deployment) -> str:
    """Until when what is missing is tried again, as a sentence; empty where that has no end."""
    until = _until(tx, deployment)
    return f"It is tried again until {_time(until)}." if until is not None else ""


def _until(tx: Transaction, deployment: Deployment) -> float | None:
    until = [at for one in waiting_on(tx, deployment) if (at := until_of(one)) is not None]
    if not until and _deploys(tx, deployment):
        until = [deployment.deadline_at]
    return max(until, default=None)


def _why(tx: Transaction, deployment: Deployment, wanted: int, missing: int) -> str:
    coming = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=_COMING)
    failure = lacking(tx, deployment) if len(coming) < missing else None
    if failure is None:
        if missing < wanted:
            return "The others are starting." if coming else "The others are about to be started."
        last = tx.timelines.newest("deployment", deployment.id).detail  # of a first replica: measuring takes its time
        return f"The first is starting. {last}".strip() if coming else "The first is about to be started."
    return f"{failure.message} {failure.evidence}".strip()


def _deploys(tx: Transaction, deployment: Deployment) -> bool:
    running = tx.list(Operation, scope=deployment.scope, state=OperationState.RUNNING)
    first = [one for one in running if one.deploys and one.targets.get("joins") != "serving"]
    return any(one.targets.get("deployment") == deployment.id for one in first)


def _time(at: float) -> str:
    """Also of a time that no calendar has: rows of before `LONGEST_DEADLINE_S` may tell one."""
    return f"{datetime.fromtimestamp(min(_LAST_S, at), UTC):%Y-%m-%d %H:%M:%S} UTC"
