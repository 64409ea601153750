"""Which node a deployment goes to, and whether there is room: what replicas reserve never exceeds what a node has."""

from __future__ import annotations

from headrace.resources.deployments import Deployment, Replica
from headrace.resources.errors import Failure, NoCapacity
from headrace.resources.nodes import Node
from headrace.resources.states import ReplicaState
from headrace.store import Transaction

HOLDING = tuple(state for state in ReplicaState if state not in {ReplicaState.FAILED, ReplicaState.GONE})
"""States in which a replica holds its memory."""


def home(tx: Transaction) -> Node | None:
    """The node for every deployment: the largest. Staging and placing must agree, so what is free does not count."""
    nodes = tx.list(Node)
    return max(nodes, key=lambda node: (node.memory_bytes, node.id), default=None)


def reserved_bytes(tx: Transaction, node_id: str, states: tuple[ReplicaState, ...] = HOLDING) -> int:
    """What the replicas on a node hold together, or those in these states."""
    return sum(_held_bytes(tx, replica) for replica in tx.list(Replica, node_id=node_id, state=states))


def _held_bytes(tx: Transaction, replica: Replica) -> int:
    deployment = tx.get(Deployment, scope=replica.scope, id=replica.deployment_id)
    return deployment.memory_bytes if deployment else 0


def no_room(tx: Transaction, node: Node, deployment: Deployment) -> Failure | None:
    """What keeps one more replica from this node; None when there is room."""
    free = node.memory_bytes - reserved_bytes(tx, node.id)
    if deployment.memory_bytes <= free:
        return None
    return NoCapacity(
        f"A replica needs {gib(deployment.memory_bytes)} of memory and node {node.id} has {gib(max(free, 0))} free.",
        evidence=f"Other replicas hold {gib(node.memory_bytes - free)} of its {gib(node.memory_bytes)}.",
        fix="Undeploy something else, or ask for a shorter context.",
    ).failure


def spare(tx: Transaction, node: Node, deployment: Deployment) -> list[Replica]:
    """The sleeping replicas to stop so that one more replica has room.

    None where that would not be enough, or where those that are ending already are. A sleeping engine keeps what it
    reserved, which holds its weights meanwhile and lets it wake, until somebody needs it.
    """
    lacking = deployment.memory_bytes + reserved_bytes(tx, node.id) - node.memory_bytes
    lacking -= reserved_bytes(tx, node.id, (ReplicaState.DRAINING,))
    chosen: list[Replica] = []
    for replica in tx.list(Replica, node_id=node.id, state=ReplicaState.ASLEEP):
        if lacking <= 0:
            break
        chosen.append(replica)
        lacking -= _held_bytes(tx, replica)
    return chosen if lacking <= 0 else []


def gib(size_bytes: int) -> str:
    """For a person."""
    return f"{size_bytes / 1024**3:.2f} GiB"
