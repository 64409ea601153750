"""The end of a deployment: no new requests, time for the running ones, then nothing of it runs."""

from __future__ import annotations

from headrace.control.pool import LIVE
from headrace.control.sight import Sight
from headrace.control.timeline import entered_at
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction

DRAIN_TIMEOUT_S = 300.0
"""The longest that running requests keep a deployment that is to go."""


def drain(tx: Transaction, deployment: Deployment, sight: Sight) -> float | None:
    """Stop each replica once it is idle or out of time; once all are gone, so is the deployment.

    Returns:
        When time runs out, or None.
    """
    give_up_at = entered_at(tx, deployment) + DRAIN_TIMEOUT_S
    replicas = []
    for replica in tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id):
        # Only a READY one can have requests; a DRAINING one is ordered to stop.
        served = replica.state is ReplicaState.READY
        over = replica.state in LIVE and (not served or sight.idle(replica.id) or sight.now >= give_up_at)
        replicas.append(stop(tx, replica) if over else replica)
    if all(replica.state in {ReplicaState.FAILED, ReplicaState.GONE} for replica in replicas):
        _bury(tx, deployment, replicas)
        return None
    return give_up_at if sight.now < give_up_at else None


def stop_replicas(tx: Transaction, deployment: Deployment) -> None:
    """Stop at once what still runs of a deployment that failed: it never was READY, so nobody is served by it."""
    for replica in tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=LIVE):
        stop(tx, replica)


def stop(tx: Transaction, replica: Replica) -> Replica:
    """Have its node stop it. One that has no node is not ours to stop: its key is forgotten, and that is all."""
    stopped = tx.move(replica, ReplicaState.DRAINING)
    return stopped if replica.node_id else tx.move(stopped, ReplicaState.GONE, nonce="")


def _bury(tx: Transaction, deployment: Deployment, replicas: list[Replica]) -> None:
    """Remove its rows; its own stays, GONE, with its timeline."""
    for replica in replicas:
        tx.delete(replica)
    for deployed in tx.list(DeployedModel, scope=deployment.scope, deployment_id=deployment.id):
        tx.delete(deployed)
    tx.move(deployment, DeploymentState.GONE)
