"""Folds a node's report into rows."""

from __future__ import annotations

import msgspec

from headrace.control.profiling import take_report
from headrace.control.timeline import note
from headrace.resources.assignments import NodeReport, ReplicaReport
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.errors import EngineDied, Failure
from headrace.resources.nodes import Node
from headrace.resources.states import ReplicaState
from headrace.store import Transaction

_LADDER = (ReplicaState.PLACED, ReplicaState.STARTING, ReplicaState.WARMING, ReplicaState.READY)
_ENDED = (ReplicaState.FAILED, ReplicaState.GONE)
_OBEYED = {
    (ReplicaState.DOZING, ReplicaState.ASLEEP),
    (ReplicaState.DOZING, ReplicaState.DRAINING),  # its engine cannot sleep: it ends
    (ReplicaState.WAKING, ReplicaState.READY),
}
"""What was ordered of a replica, and what its node reports once it is so."""


def fold(tx: Transaction, report: NodeReport, *, takes_account_of: frozenset[str], now: float) -> None:
    """Bring the node's row and those of its replicas to what it says.

    Args:
        tx: An open transaction.
        report: What the node says.
        takes_account_of: Replicas that it would name if it had them.
        now: Unix seconds.
    """
    _fold_node(tx, report, now)
    said = {(one.id, one.epoch): one for one in report.replicas}
    for replica in tx.list(Replica, node_id=report.node_id):
        if replica.state in _ENDED:
            continue
        one = said.get((replica.id, replica.epoch))
        if one is not None:
            _fold_replica(tx, replica, one, now)
        elif replica.id in takes_account_of:
            _lose(tx, replica)


def _fold_node(tx: Transaction, report: NodeReport, now: float) -> None:
    node = Node(
        id=report.node_id,
        boot_id=report.boot_id,
        memory_bytes=report.memory_bytes,
        cores=report.cores,
        hardware=report.hardware,
        runtimes=report.runtimes,
        model_cache=report.model_cache,
        last_seen_at=now,
    )
    before = tx.get(Node, id=report.node_id)
    if before is None:
        tx.insert(node)
    else:
        tx.update(msgspec.structs.replace(node, resource_version=before.resource_version))


def _fold_replica(tx: Transaction, replica: Replica, report: ReplicaReport, now: float) -> None:
    if report.state not in _ENDED:
        _follow(tx, replica, report, now)
    elif replica.state is ReplicaState.DRAINING or (report.state is ReplicaState.GONE and report.failure is None):
        # It was told to end, or its node was, and drained it: nothing failed.
        tx.move(replica, ReplicaState.GONE, exit_status=report.exit_status, log_tail=report.log_tail)
    else:
        _fail(tx, replica, report)


def _fail(tx: Transaction, replica: Replica, report: ReplicaReport) -> None:
    tx.move(
        replica,
        ReplicaState.FAILED,
        failure=report.failure or _died(replica, report.exit_status),
        exit_status=report.exit_status,
        log_tail=report.log_tail,
        pid=0,
        resident_bytes=0,
    )


def _follow(tx: Transaction, replica: Replica, report: ReplicaReport, now: float) -> None:
    """Up the ladder, a rung at a time. A node that starts anew looks at its replicas afresh: that is no step back."""
    told = msgspec.structs.replace(
        replica,
        address=report.address or replica.address,
        pid=report.pid,
        resident_bytes=report.resident_bytes,
        warmup=report.warmup or replica.warmup,
        failure=report.failure,
    )
    rungs: tuple[ReplicaState, ...] = ()
    if replica.state in _LADDER and report.state in _LADDER:
        rungs = _LADDER[_LADDER.index(replica.state) + 1 : _LADDER.index(report.state) + 1]
    elif (replica.state, report.state) in _OBEYED:
        rungs = (report.state,)
    for state in rungs:
        told = tx.move(told, state, detail=report.detail)
    if not rungs and told != replica:
        tx.update(told)
    if report.detail and (report.state is ReplicaState.WARMING or (rungs and report.state is ReplicaState.ASLEEP)):
        deployment = tx.get(Deployment, scope=replica.scope, id=replica.deployment_id)
        assert deployment is not None, "a foreign key holds it"
        note(tx, deployment, report.detail)
    if report.state is ReplicaState.READY and report.state in rungs and replica.state in _LADDER:
        take_report(tx, told, report.profile, now=now)


def _lose(tx: Transaction, replica: Replica) -> None:
    """The node does not have it, though it was told of it."""
    if replica.state is ReplicaState.DRAINING:
        tx.move(replica, ReplicaState.GONE)
    else:
        tx.move(replica, ReplicaState.FAILED, failure=_died(replica, None), pid=0, resident_bytes=0)


def _died(replica: Replica, exit_status: int | None) -> Failure:
    return EngineDied(
        f"The engine of replica {replica.id} is not there any more.",
        evidence=f"Node {replica.node_id} was told to run it and "
        + ("does not have it." if exit_status is None else f"says that it ended with status {exit_status}."),
        fix="It is replaced by itself; if that happens again and again, look at `headrace logs`.",
    ).failure
