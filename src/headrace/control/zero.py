"""Scale to zero: a pool that nobody asks for goes to sleep, and whoever asks for it wakes it.

Asleep, a pool is taken from the gateway before its engines are told to sleep, so that no request is sent to one that
does. What slipped in between wakes the pool again, at once where its engines still run. An engine that cannot sleep
ends instead; which can, its node knows.
"""

from __future__ import annotations

import msgspec

from headrace.control.draining import stop
from headrace.control.operations import deploy_runs
from headrace.control.pool import LIVE, STARTING, tend
from headrace.control.restarts import KEPT_FAILURES
from headrace.control.sight import Sight
from headrace.control.surplus import shrink
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction

PLACED = (
    DeploymentState.PLACING,
    DeploymentState.STARTING,
    DeploymentState.WARMING,
    DeploymentState.READY,
    DeploymentState.ASLEEP,
)
"""The states of a deployment whose files are where its engines need them."""


def rest_or_tend(tx: Transaction, deployment: Deployment, sight: Sight) -> float | None:
    """Have the pool's replicas run, or none of them; returns when to look again even if nothing is heard until then."""
    shrink(tx, deployment, sight)
    if deployment.state is DeploymentState.ASLEEP:
        return _sleep(tx, deployment, sight)
    if deployment.state is DeploymentState.READY and _unasked(tx, deployment, sight):
        return _fall_asleep(tx, deployment, sight)
    for replica in _live(tx, deployment):
        if replica.state is ReplicaState.ASLEEP:
            tx.move(replica, ReplicaState.WAKING)
    return tend(tx, deployment, sight)


def _unasked(tx: Transaction, deployment: Deployment, sight: Sight) -> bool:
    """Whether a READY deployment goes to sleep: as far as is known nothing runs or waits, and that for long enough.

    What the gateway says counts only if it knows a replica of the pool: before, nobody could have asked.
    """
    after_s = deployment.scale_to_zero_after_s
    if not after_s or sight.waiting.get(deployment.id) or sight.idle_s.get(deployment.id, 0.0) < after_s:
        return False
    ready = {replica.id for replica in _live(tx, deployment) if replica.state is ReplicaState.READY}
    if not ready & (sight.routed or frozenset()) or any(sight.outstanding.get(replica_id) for replica_id in ready):
        return False
    return not deploy_runs(tx, deployment)


def _fall_asleep(tx: Transaction, deployment: Deployment, sight: Sight) -> float:
    """From now on no request is sent to its replicas; `_sleep` has them sleep."""
    told = f"Scaled to zero after {deployment.scale_to_zero_after_s:g} s without a request; the next request wakes it."
    rested = msgspec.structs.replace(deployment, failure=None, restarts=0, scaling=None)  # it wakes as it began
    tx.move(rested, DeploymentState.ASLEEP, detail=told)
    return sight.now


def _sleep(tx: Transaction, deployment: Deployment, sight: Sight) -> float | None:
    """Have replicas sleep that certainly have nothing to do; once somebody asks, wake up."""
    live = _live(tx, deployment)
    if sight.waiting.get(deployment.id) or any(sight.outstanding.get(replica.id) for replica in live):
        tx.move(deployment, DeploymentState.PLACING, detail="A request came: it wakes up.")
        return sight.now
    for replica in live:
        if replica.state in STARTING:
            stop(tx, replica)
        elif replica.state is ReplicaState.READY and sight.idle(replica.id):
            tx.move(replica, ReplicaState.DOZING)
    _forget_old(tx, deployment)
    return None


def _live(tx: Transaction, deployment: Deployment) -> list[Replica]:
    return tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=LIVE)


def _forget_old(tx: Transaction, deployment: Deployment) -> None:
    """Each sleep leaves records of replicas; the newest tell enough, and the next epoch."""
    gone = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=ReplicaState.GONE)
    for replica in sorted(gone, key=lambda one: -one.epoch)[KEPT_FAILURES:]:
        tx.delete(replica)
