"""A throughput whose replicas do not come in time: what was before goes on, and it is told why."""

from __future__ import annotations

import msgspec

from headrace.control.autoscaling.pending import lacking
from headrace.control.guarantees import follow, ready_replicas, until_of
from headrace.control.timeline import note
from headrace.control.traffic import hand_over
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import DeployTimeout, Failure
from headrace.resources.operations import Operation
from headrace.resources.states import DeploymentState, OperationState
from headrace.store import Transaction


def out_of_time(operation: Operation, now: float) -> bool:
    """Whether it waits for replicas no longer."""
    until = until_of(operation)
    return until is not None and now >= until


def unmet(tx: Transaction, deployment: Deployment) -> Failure:
    """Why a throughput is not there by its deadline: with the sentence that was told of it until then."""
    ready, wanted = ready_replicas(tx, deployment), deployment.wanted_replicas
    failure = lacking(tx, deployment) or deployment.failure
    if failure is None:
        return DeployTimeout(
            f"{ready} of {wanted} replicas that its throughput takes were ready before the deadline.",
            evidence=f"The deployment is {deployment.state}.",
            fix="Look at its timeline and at the engines' logs, then ask again, with a longer deadline if need be.",
        ).failure
    return msgspec.structs.replace(failure, message=f"{ready} of {wanted} replicas serve. {failure.message}")


def take_back(tx: Transaction, operation: Operation, deployment: Deployment, deployed: DeployedModel) -> None:
    """End a deploy whose throughput is not there in time.

    What nobody shares is FAILED. Of what others share, the deployed model alone goes: theirs serve on as they did.
    """
    failure = unmet(tx, deployment)
    tx.move(operation, OperationState.FAILED, failure=failure)
    if len(tx.list(DeployedModel, scope=deployed.scope, deployment_id=deployment.id)) == 1:
        tx.move(deployment, DeploymentState.FAILED, failure=failure)
        return
    tx.delete(hand_over(tx, deployed))
    note(tx, deployment, f"Endpoint {deployed.endpoint_id} has it no more: its throughput was not there in time.")
    _follow(tx, deployment)


def refuse_change(tx: Transaction, operation: Operation, deployment: Deployment) -> None:
    """End a change of throughput that is not there in time: the old one stays."""
    tx.move(operation, OperationState.FAILED, failure=unmet(tx, deployment))
    _follow(tx, deployment)


def _follow(tx: Transaction, deployment: Deployment) -> None:
    current = tx.get(Deployment, scope=deployment.scope, id=deployment.id)
    assert current is not None, "it was moved, not deleted"
    follow(tx, current)
