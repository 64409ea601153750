"""The life of an external deployment: ACCEPTED → CHECKING → WARMING → READY, and back to CHECKING while it is away.

Its one replica is a row from the beginning: the server's address and key. Nothing is staged, placed or started, and no
node knows of it.
"""

from __future__ import annotations

import logging

import msgspec

from headrace.control.external.looks import Look, Wanted
from headrace.control.external.probe import Listed
from headrace.control.operations import deploy_runs
from headrace.control.sight import Sight
from headrace.gateway.upstream import Outside
from headrace.resources.deployments import Deployment, Replica, Warmup
from headrace.resources.egress import Egress, on_this_machine
from headrace.resources.errors import (
    CODES,
    DeployTimeout,
    ExternalRefused,
    ExternalUnreachable,
    FailedPrecondition,
    Failure,
    InternalError,
    PermissionDenied,
    QueueFull,
)
from headrace.resources.external import EXTERNAL, ExternalServer, read_base_url
from headrace.resources.models import ModelVersion
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction

_log = logging.getLogger(__name__)

AWAY_AFTER_MISSES = 3
"""Looks in a row that found nothing: one that was READY is away then, and one that never was is given up."""

LOOKED_AT = (
    DeploymentState.ACCEPTED,
    DeploymentState.CHECKING,
    DeploymentState.WARMING,
    DeploymentState.READY,
)
"""The states in which its server matters; the others end it as they end any deployment."""

_DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What code that is wrong raises, or right code of values that it did not expect. Not what a store in need raises."""

_LADDER = (ReplicaState.PLACED, ReplicaState.STARTING, ReplicaState.WARMING, ReplicaState.READY)


def wanted_looks(tx: Transaction, egress: Egress) -> dict[str, Wanted]:
    """What is to be looked at now, by deployment."""
    wanted = {}
    for deployment in tx.list(Deployment, runtime=EXTERNAL, state=LOOKED_AT):
        server = server_of(tx, deployment)
        wanted[deployment.id] = Wanted(
            server=server,
            key=_replica(tx, deployment).nonce,
            outside=Outside(egress.networks_for(anywhere=server.anywhere), egress.ca_file),
            generate=deployment.state is DeploymentState.WARMING,
        )
    return wanted


def server_of(tx: Transaction, deployment: Deployment) -> ExternalServer:
    """The server that an external deployment names."""
    version = tx.get(
        ModelVersion, scope=deployment.scope, model_id=deployment.model_id, version=deployment.model_version
    )
    assert version is not None, "a model in use is not deleted"
    assert version.spec.external is not None, "a deployment whose runtime is external has a server"
    return version.spec.external


def advance(tx: Transaction, deployment: Deployment, sight: Sight) -> float | None:
    """Do what the state asks for, by what was seen last; returns when to look again even if nothing is heard."""
    if deployment.state is DeploymentState.ACCEPTED:
        tx.move(deployment, DeploymentState.CHECKING)
        return sight.now
    look = sight.external.get(deployment.id)
    first_time = deploy_runs(tx, deployment)
    if look is not None and look.generate == (deployment.state is DeploymentState.WARMING):
        if look.failure is not None:
            return _missed(tx, deployment, look, look.failure, sight, first_time=first_time)
        try:
            return _found(tx, deployment, look, sight)
        except _DEFECTS as error:
            return _not_taken_in(tx, deployment, look, error, sight, first_time=first_time)
    return _wait(tx, deployment, sight, first_time=first_time)


def _not_taken_in(
    tx: Transaction, deployment: Deployment, look: Look, error: Exception, sight: Sight, *, first_time: bool
) -> float | None:
    """A defect of ours with what was found: the deployment says so, and is held to its deadline like any other.

    Some of what was found may be in the rows already, so the replica's failure keeps requests from it.
    """
    failure = InternalError("What the external server said could not be taken in.", evidence=repr(error)).failure
    if deployment.failure is None or deployment.failure.code != failure.code:
        _log.error("A defect with what deployment %s's server said.", deployment.id, exc_info=error)
    tx.update(msgspec.structs.replace(_replica(tx, deployment), failure=failure))
    now = tx.get(Deployment, scope=deployment.scope, id=deployment.id)
    assert now is not None, "it was there a moment ago, in this transaction"
    return _missed(tx, now, look, failure, sight, first_time=first_time)


def _found(tx: Transaction, deployment: Deployment, look: Look, sight: Sight) -> float | None:
    if isinstance(look.found, Warmup):
        _raise(tx, deployment, ReplicaState.READY, warmup=look.found)
        ready = msgspec.structs.replace(deployment, failure=None)
        tx.move(ready, DeploymentState.READY, detail=_measured(look.found))
        return sight.now
    if deployment.state is DeploymentState.CHECKING:
        assert isinstance(look.found, Listed)
        _raise(tx, deployment, ReplicaState.WARMING)
        length = look.found.max_model_len or deployment.max_model_len
        detail = _described(tx, deployment, length)
        tx.move(deployment, DeploymentState.WARMING, detail=detail, max_model_len=length)
        return sight.now
    return None


def _missed(
    tx: Transaction, deployment: Deployment, look: Look, failure: Failure, sight: Sight, *, first_time: bool
) -> float | None:
    enough = look.misses >= AWAY_AFTER_MISSES or _final(failure)
    if deployment.state is DeploymentState.READY:
        if enough and failure.code != QueueFull.code:  # a server that is busy is there
            tx.update(msgspec.structs.replace(_replica(tx, deployment), failure=failure))
            tx.move(deployment, DeploymentState.CHECKING, detail="The external server is away.", failure=failure)
        return None
    if first_time and enough:
        told = _for_the_deployer(failure, keyed=bool(_replica(tx, deployment).nonce))
        tx.move(deployment, DeploymentState.FAILED, failure=told)
        return sight.now
    if deployment.failure is None or deployment.failure.code != failure.code:
        tx.move(deployment, deployment.state, detail=failure.message, failure=failure)
    return _wait(tx, deployment, sight, first_time=first_time)


def _for_the_deployer(failure: Failure, *, keyed: bool) -> Failure:
    """What a failure means to who has just named this server; elsewhere it is told to those who only use it."""
    if failure.code == ExternalUnreachable.code:
        return msgspec.structs.replace(
            failure, fix="See that it runs and that this machine reaches it, then deploy it again."
        )
    if failure.code == ExternalRefused.code and not keyed:
        return msgspec.structs.replace(
            failure,
            message="The external server wants a key, and the deployment has none.",
            fix="Deploy it again with its key: `--external-key-env VAR` or `--external-key-file FILE`.",
        )
    if failure.code == ExternalRefused.code:
        return msgspec.structs.replace(failure, fix="Deploy it again with a key that the server takes.")
    return failure


def _final(failure: Failure) -> bool:
    """Whether another look would only find the same: somebody has to change something first."""
    return issubclass(CODES.get(failure.code, InternalError), FailedPrecondition | PermissionDenied)


def _wait(tx: Transaction, deployment: Deployment, sight: Sight, *, first_time: bool) -> float | None:
    if not first_time or deployment.state is DeploymentState.READY:
        return None
    if sight.now < deployment.deadline_at:
        return deployment.deadline_at
    late = DeployTimeout(
        "The external server did not answer as it should before the deployment's deadline.",
        evidence=f"It is {deployment.state}. {tx.timelines.newest('deployment', deployment.id).detail}".strip(),
        fix="See that the server answers, then deploy again.",
    )
    tx.move(deployment, DeploymentState.FAILED, failure=late.failure)
    return sight.now


def _raise(tx: Transaction, deployment: Deployment, state: ReplicaState, warmup: Warmup | None = None) -> None:
    """Take the replica up to this rung. One that was READY stays there: what keeps requests from it is its failure."""
    replica = _replica(tx, deployment)
    told = msgspec.structs.replace(
        replica, warmup=warmup or replica.warmup, failure=None if state is ReplicaState.READY else replica.failure
    )
    rungs = _LADDER[_LADDER.index(replica.state) + 1 : _LADDER.index(state) + 1]
    for rung in rungs:
        told = tx.move(told, rung)
    if not rungs and told != replica:
        tx.update(told)


def _replica(tx: Transaction, deployment: Deployment) -> Replica:
    (replica,) = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id)
    return replica


def _described(tx: Transaction, deployment: Deployment, length: int) -> str:
    server = server_of(tx, deployment)
    context = f", a context of {length:,} tokens" if length else ""
    told = f"{server.base_url} has the model {server.model!r}{context}."
    url = read_base_url(server.base_url)
    if url.scheme == "https" or on_this_machine(url.host):
        return told
    return f"{told} Its key and all prompts go there unencrypted: the base URL is not https."


def _measured(warmup: Warmup) -> str:
    if not warmup.output_tokens:
        return f"First answer after {warmup.time_to_first_token_s:.2f} s."
    return f"First token after {warmup.time_to_first_token_s:.2f} s, {warmup.tokens_per_s:.1f} tokens/s."
