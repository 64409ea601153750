"""What to say of a deployment that is not READY when its deadline comes: whatever kept it, where that is known."""

from __future__ import annotations

from headrace.control.placement import home, no_room
from headrace.resources.deployments import Deployment
from headrace.resources.errors import DeployTimeout, Failure, NoNode
from headrace.resources.states import DeploymentState
from headrace.store import Transaction


def overdue(tx: Transaction, deployment: Deployment) -> Failure:
    """Why it fails: no node, no room, what its replicas died of, or just time."""
    node = home(tx)
    if node is None:
        return NoNode(
            "No serving node reported before the deployment's deadline.",
            fix="`headrace status` shows the nodes; the node's log tells why it does not start.",
        ).failure
    lacking = no_room(tx, node, deployment) if deployment.state is DeploymentState.PLACING else None
    known = lacking or deployment.failure
    if known is not None:
        return known
    last = tx.timelines.newest("deployment", deployment.id)
    return DeployTimeout(
        "The deployment did not become ready before its deadline.",
        evidence=f"It is {deployment.state}. {last.detail}".strip(),
        fix="Look at its timeline and at the engine's log, then deploy again, with a longer deadline if it needs one.",
    ).failure
