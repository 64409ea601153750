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


def reserved_bytes(tx: Transaction, node_id: str) -> int:
    """What the replicas on a node hold together."""
    total = 0
    for replica in tx.list(Replica, node_id=node_id, state=HOLDING):
        deployment = tx.get(Deployment, scope=replica.scope, id=replica.deployment_id)
        total += deployment.memory_bytes if deployment else 0
    return total


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


def gib(size_bytes: int) -> str:
    """For a person."""
    return f"{size_bytes / 1024**3:.2f} GiB"
