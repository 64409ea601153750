"""The states of resources and the moves between them: one table that code, docs and console read.

A deployment's life::

    ACCEPTED → CHECKING → STAGING → PLACING → STARTING → WARMING → READY → DRAINING → GONE
        └─────────┴──────────┴─────────┴──────────┴─────────┴────────┴──→ FAILED → DRAINING → GONE

A deployment that was READY and lost its replicas goes back to PLACING: the level-triggered reconciler makes new ones.
An external one has nothing to stage or place: CHECKING → WARMING → READY, and from READY back to CHECKING while its
server is away. One that scales to zero goes from READY to ASLEEP when nobody asks, and back by way of PLACING when
somebody does. Its replicas end meanwhile, or go READY → DOZING → ASLEEP → WAKING → READY where their engines can.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from headrace.resources.errors import IllegalMove


class DeploymentState(StrEnum):
    """Where a pool of replicas stands."""

    ACCEPTED = "ACCEPTED"  # the wish is stored
    CHECKING = "CHECKING"  # weights, fit and quota; or whether an external server is there and has the model
    STAGING = "STAGING"  # bytes and runtime on their way to the node
    PLACING = "PLACING"  # looking for a node with room
    STARTING = "STARTING"  # the engine loads
    WARMING = "WARMING"  # one real generation, measured
    READY = "READY"  # at least one replica takes traffic
    ASLEEP = "ASLEEP"  # scaled to zero: no replica computes, and the next request wakes it
    DRAINING = "DRAINING"  # no new requests; running ones finish
    FAILED = "FAILED"  # with code, evidence and fix
    GONE = "GONE"  # nothing of it runs


ANSWERING = (DeploymentState.READY, DeploymentState.ASLEEP)
"""The states in which a request gets an answer, at once or once the deployment is awake."""


class ReplicaState(StrEnum):
    """Where one server process stands."""

    PLACED = "PLACED"
    STARTING = "STARTING"
    WARMING = "WARMING"
    READY = "READY"
    DOZING = "DOZING"  # told to fall asleep, or to end where its engine cannot sleep
    ASLEEP = "ASLEEP"  # its engine has given its devices' memory back
    WAKING = "WAKING"  # told to wake
    DRAINING = "DRAINING"
    FAILED = "FAILED"
    GONE = "GONE"


class OperationState(StrEnum):
    """Where a long-running operation stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class RolloutState(StrEnum):
    """Where a canary's way to an endpoint's traffic stands."""

    RUNNING = "RUNNING"  # in one of its stages, and on to the next one once that is passed
    PAUSED = "PAUSED"  # stays in its stage; a canary out of its bounds is rolled back from here too
    PROMOTED = "PROMOTED"  # the canary has all of the traffic
    ROLLED_BACK = "ROLLED_BACK"  # the traffic is as it was before


OPEN_ROLLOUT = (RolloutState.RUNNING, RolloutState.PAUSED)
"""The states in which a rollout decides on its endpoint's traffic."""


def _table(states: type[StrEnum], moves: Mapping[str, str]) -> Mapping[StrEnum, frozenset[StrEnum]]:
    table = {states(old): frozenset(states(new) for new in news.split()) for old, news in moves.items()}
    assert set(table) == set(states), "every state has its line"
    return table


DEPLOYMENT_MOVES: Mapping[StrEnum, frozenset[StrEnum]] = _table(
    DeploymentState,
    {
        "ACCEPTED": "CHECKING FAILED DRAINING",
        "CHECKING": "STAGING WARMING FAILED DRAINING",
        "STAGING": "PLACING FAILED DRAINING",
        "PLACING": "STARTING FAILED DRAINING",
        "STARTING": "WARMING PLACING FAILED DRAINING",
        "WARMING": "READY PLACING FAILED DRAINING",
        "READY": "PLACING CHECKING ASLEEP FAILED DRAINING",
        "ASLEEP": "PLACING DRAINING",
        "DRAINING": "GONE",
        "FAILED": "DRAINING GONE",
        "GONE": "",
    },
)

REPLICA_MOVES: Mapping[StrEnum, frozenset[StrEnum]] = _table(
    ReplicaState,
    {
        "PLACED": "STARTING FAILED DRAINING GONE",
        "STARTING": "WARMING FAILED DRAINING GONE",
        "WARMING": "READY FAILED DRAINING GONE",
        "READY": "DOZING DRAINING FAILED GONE",
        "DOZING": "ASLEEP DRAINING FAILED GONE",
        "ASLEEP": "WAKING DRAINING FAILED GONE",
        "WAKING": "READY DRAINING FAILED GONE",
        "DRAINING": "GONE FAILED",
        "FAILED": "GONE",
        "GONE": "",
    },
)

OPERATION_MOVES: Mapping[StrEnum, frozenset[StrEnum]] = _table(
    OperationState, {"RUNNING": "SUCCEEDED FAILED", "SUCCEEDED": "", "FAILED": ""}
)

ROLLOUT_MOVES: Mapping[StrEnum, frozenset[StrEnum]] = _table(
    RolloutState,
    {
        "RUNNING": "PAUSED PROMOTED ROLLED_BACK",
        "PAUSED": "RUNNING PROMOTED ROLLED_BACK",
        "PROMOTED": "",
        "ROLLED_BACK": "",
    },
)

State = DeploymentState | ReplicaState | OperationState | RolloutState

_MOVES: Mapping[type[StrEnum], Mapping[StrEnum, frozenset[StrEnum]]] = {
    DeploymentState: DEPLOYMENT_MOVES,
    ReplicaState: REPLICA_MOVES,
    OperationState: OPERATION_MOVES,
    RolloutState: ROLLOUT_MOVES,
}


def moves_from(state: State) -> frozenset[StrEnum]:
    """The states that `state` may move to; empty for an end state."""
    return _MOVES[type(state)][state]


def check_move(what: str, old: State, new: State) -> None:
    """Allow a move, or say why not. Staying where one is, is always allowed.

    Raises:
        IllegalMove: The table has no such move.
    """
    if old == new or new in moves_from(old):
        return
    allowed = ", ".join(sorted(moves_from(old))) or "nothing: it is an end state"
    raise IllegalMove(f"{what} cannot go from {old} to {new}.", evidence=f"From {old} it can go to {allowed}.")
