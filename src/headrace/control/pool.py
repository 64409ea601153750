"""Keeps a deployment's pool of replicas as large as was asked, and its state that of the pool's best replica."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from headrace.control.autoscaling.pending import retried, tell_pending
from headrace.control.deadlines import overdue
from headrace.control.operations import deploy_runs
from headrace.control.placement import Gpus, Placed, find_room, gib, home, spare
from headrace.control.restarts import KEPT_FAILURES, delay_s, hopeless, was_stable
from headrace.control.sight import Sight
from headrace.control.sizes import advised
from headrace.control.timeline import note
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.errors import Failure
from headrace.resources.names import new_id
from headrace.resources.nodes import Node
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction

STARTING = (ReplicaState.PLACED, ReplicaState.STARTING, ReplicaState.WARMING)
LIVE = (*STARTING, ReplicaState.READY, ReplicaState.DOZING, ReplicaState.ASLEEP, ReplicaState.WAKING)
_LADDER = (DeploymentState.PLACING, DeploymentState.STARTING, DeploymentState.WARMING, DeploymentState.READY)


def tend(tx: Transaction, deployment: Deployment, sight: Sight) -> float | None:
    """Follow the pool's replicas, replace the failed ones, or give up a pool that never was READY and cannot be.

    Returns:
        When to look again even if nothing is heard until then.
    """
    replicas = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id)
    live = [replica for replica in replicas if replica.state in LIVE]
    failed = sorted((one for one in replicas if one.state is ReplicaState.FAILED), key=lambda one: -one.epoch)
    first_time = deploy_runs(tx, deployment)
    failure = hopeless(failed) if first_time and deployment.state is not DeploymentState.READY else None
    if failure is None:
        deployment = _follow(tx, deployment, live, failed)
        if first_time and deployment.state is not DeploymentState.READY and sight.now >= deployment.deadline_at:
            failure = overdue(tx, deployment)
    if failure is not None:
        tx.move(deployment, DeploymentState.FAILED, failure=advised(failure, deployment))
        return sight.now
    gone = sorted((one for one in replicas if one.state is ReplicaState.GONE), key=lambda one: -one.epoch)
    for old in (*failed[KEPT_FAILURES:], *gone[KEPT_FAILURES:]):
        tx.delete(old)
    again_at = _fill(tx, deployment, replicas, sight)
    deadline_at = deployment.deadline_at if first_time and deployment.state is not DeploymentState.READY else None
    return min((at for at in (again_at, deadline_at) if at is not None), default=None)


def _follow(tx: Transaction, deployment: Deployment, live: Sequence[Replica], failed: Sequence[Replica]) -> Deployment:
    """Move the deployment to where its best replica is, one rung at a time; back only by way of PLACING."""
    best = max((rung(replica) for replica in live), default=0)
    reached = _LADDER.index(deployment.state)
    if best < reached:
        failure = advised(failed[0].failure, deployment) if failed else None
        deployment = tx.move(deployment, DeploymentState.PLACING, detail="Its replicas are lost.", failure=failure)
        reached = 0
    for state in _LADDER[reached + 1 : best + 1]:
        if state is DeploymentState.READY:
            deployment = msgspec.structs.replace(deployment, failure=None)
        deployment = tx.move(deployment, state, detail=_told(tx, live) if state is DeploymentState.READY else "")
    return deployment


def rung(replica: Replica) -> int:
    """How far a live replica has come; the highest serves."""
    return {ReplicaState.READY: 3, ReplicaState.WARMING: 2, ReplicaState.DOZING: 0}.get(replica.state, 1)


def _told(tx: Transaction, live: Sequence[Replica]) -> str:
    """How it became READY: what a replica that woke says, or what WARMING measured."""
    ready = next(replica for replica in live if replica.state is ReplicaState.READY)
    return tx.timelines.newest("replica", ready.id).detail or _measured(live)


def _measured(live: Sequence[Replica]) -> str:
    warmups = [replica.warmup for replica in live if replica.warmup is not None]
    if not warmups:
        return ""
    first = warmups[0]
    if not first.output_tokens:
        return f"First embedding after {first.time_to_first_token_s:.2f} s."
    return f"First token after {first.time_to_first_token_s:.2f} s, {first.tokens_per_s:.1f} tokens/s."


def _fill(tx: Transaction, deployment: Deployment, replicas: Sequence[Replica], sight: Sight) -> float | None:
    """Place what is missing; returns when to try again, or None when only a report can change anything."""
    missing = deployment.wanted_replicas - sum(replica.state in LIVE for replica in replicas)
    if missing <= 0:
        tell_pending(tx, deployment, "")
        return None
    node = home(tx)
    if node is None or not sight.hears(node.id):
        _wait(tx, deployment, "Waiting for a serving node to report.")
        return None
    epoch = max((replica.epoch for replica in replicas), default=0)
    restarts, again_at = _backoff(tx, deployment, replicas)
    if sight.now < again_at:
        return again_at
    to_replace = _failed_since_the_last_placement(replicas)
    for number in range(missing):
        found = find_room(tx, node, deployment)
        if isinstance(found, Failure):
            for sleeper in spare(tx, node, deployment):
                tx.move(sleeper, ReplicaState.DRAINING, detail=f"Stopped: deployment {deployment.id} needs its memory.")
            _wait(tx, deployment, f"{found.message} {found.evidence} {retried(tx, deployment)}".strip())
            return None
        epoch += 1
        restarts += number < to_replace
        deployment = _place(tx, deployment, node, found, epoch=epoch, restarts=restarts, now=sight.now)
    tell_pending(tx, deployment, "")
    return None


def _wait(tx: Transaction, deployment: Deployment, told: str) -> None:
    """Say what keeps replicas from being placed; those that run stay."""
    note(tx, tell_pending(tx, deployment, told), told)


def _failed_since_the_last_placement(replicas: Sequence[Replica]) -> int:
    """How many failed that were not replaced yet: a pool is filled whole. What is missing besides was never there."""
    placed_at = max((replica.created_at for replica in replicas), default=0.0)
    return sum(one.state is ReplicaState.FAILED and one.updated_at >= placed_at for one in replicas)


def _backoff(tx: Transaction, deployment: Deployment, replicas: Sequence[Replica]) -> tuple[int, float]:
    """How many replacements there were in a row, and from when the next may be made."""
    newest = max((one for one in replicas if one.state is ReplicaState.FAILED), key=lambda one: one.epoch, default=None)
    if newest is None:
        return deployment.restarts, 0.0
    restarts = 0 if was_stable(tx.timelines.shown("replica", newest.id)) else deployment.restarts
    return restarts, newest.updated_at + delay_s(restarts)


def _place(
    tx: Transaction, deployment: Deployment, node: Node, placed: Placed, *, epoch: int, restarts: int, now: float
) -> Deployment:
    replica = Replica(
        scope=deployment.scope,
        id=new_id(),
        deployment_id=deployment.id,
        node_id=node.id,
        gpus=placed.gpus,
        machine_bytes=placed.machine_bytes,
        epoch=epoch,
        nonce=secrets.token_urlsafe(32),
        created_at=now,
        updated_at=now,
    )
    tx.insert(replica)
    return tx.move(
        deployment,
        DeploymentState.STARTING if deployment.state is DeploymentState.PLACING else deployment.state,
        detail=f"Replica {replica.id} on node {node.id}{_computing_on(node, placed.gpus)}, with "
        f"{gib(deployment.memory_bytes)} of memory.",
        restarts=restarts,
    )


def _computing_on(node: Node, gpus: Gpus) -> str:
    """By the numbers that people know, such as those of ``nvidia-smi``."""
    there = node.hardware.get("gpus") or ()
    numbers = [str(gpu.get("index", gpu["uuid"])) for gpu in there if gpu.get("uuid") in gpus]
    return f", GPU {' and '.join(numbers)}" if numbers else ""
