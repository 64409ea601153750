"""When a long-running operation is done: decided from the rows it is about, so that no crash can forget one."""

from __future__ import annotations

from headrace.control.guarantees import carries, grant, wish_of
from headrace.control.sight import Sight
from headrace.control.splits import give_split
from headrace.control.timeline import entered_at
from headrace.control.traffic import take_all
from headrace.control.unmet import out_of_time, refuse_change, take_back
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import Cancelled
from headrace.resources.names import Scope
from headrace.resources.operations import Operation
from headrace.resources.profiles import Provision
from headrace.resources.states import ANSWERING, DeploymentState, OperationState, ReplicaState
from headrace.store import Transaction

GATEWAY_WAIT_S = 5.0
"""How long a deployment that is READY waits for the gateway to know: a push takes milliseconds, and a gateway that is
away for longer is no reason to call the deployment unfinished."""

_ENDING = frozenset({DeploymentState.DRAINING, DeploymentState.FAILED, DeploymentState.GONE})


def settle_operations(tx: Transaction, scope: Scope, sight: Sight | None = None) -> None:
    """Complete every running operation whose end has come; without a sight, none that waits for the gateway."""
    for operation in tx.list(Operation, scope=scope, state=OperationState.RUNNING):
        if operation.deploys:
            _settle_deploy(tx, operation, sight)
        elif (wish := wish_of(operation)) is not None:
            _settle_provision(tx, operation, wish, sight)
        elif operation.kind == "undeploy":
            _settle_undeploy(tx, operation)
        elif operation.kind == "delete_endpoint":
            _settle_delete_endpoint(tx, operation)
        else:
            tx.move(operation, OperationState.SUCCEEDED)  # its rows came or went in the transaction that asked


def deploy_runs(tx: Transaction, deployment: Deployment) -> bool:
    """Whether the deployment still has to become READY for the first time."""
    running = tx.list(Operation, scope=deployment.scope, state=OperationState.RUNNING)
    return any(one.deploys and one.targets.get("deployment") == deployment.id and not _joined(one) for one in running)


def _joined(operation: Operation) -> bool:
    """Whether it is of a deployment that had been READY before it was asked for."""
    return operation.targets.get("joins") == "serving"


def _settle_deploy(tx: Transaction, operation: Operation, sight: Sight | None) -> None:
    deployment = tx.get(Deployment, scope=operation.scope, id=operation.targets["deployment"])
    deployed = tx.get(DeployedModel, scope=operation.scope, id=operation.targets["deployed_model"])
    ending = deployment is None or deployment.state in {DeploymentState.DRAINING, DeploymentState.GONE}
    if deployment is None or ending or deployed is None:  # a deployment that others share goes on without it
        cancelled = Cancelled("The deployment was taken off its endpoint before it was ready.")
        tx.move(operation, OperationState.FAILED, failure=cancelled.failure)
    elif deployment.state is DeploymentState.FAILED:
        tx.move(operation, OperationState.FAILED, failure=deployment.failure)
    elif deployed.provision is not None and not carries(tx, deployment, deployed, deployed.provision):
        served = deployment.state is DeploymentState.READY or _joined(operation)  # else the pool's own deadline counts
        if served and sight is not None and out_of_time(operation, sight.now):
            take_back(tx, operation, deployment, deployed)
    elif deployment.state is DeploymentState.READY or (_joined(operation) and deployment.state in ANSWERING):
        if operation.split:
            give_split(tx, operation)
        elif operation.takes_traffic:
            take_all(tx, deployed)
        if sight is not None and _answers(tx, deployment, operation, sight):
            tx.move(operation, OperationState.SUCCEEDED)


def _settle_provision(tx: Transaction, operation: Operation, wish: Provision, sight: Sight | None) -> None:
    """More of a throughput holds once it is carried; what is not in time does not."""
    deployment = tx.get(Deployment, scope=operation.scope, id=operation.targets["deployment"])
    deployed = tx.get(DeployedModel, scope=operation.scope, id=operation.targets["deployed_model"])
    if deployment is None or deployment.state in _ENDING or deployed is None:
        cancelled = Cancelled("The deployed model ended before its throughput was there.")
        tx.move(operation, OperationState.FAILED, failure=cancelled.failure)
    elif carries(tx, deployment, deployed, wish):
        grant(tx, operation, deployment)
    elif sight is not None and out_of_time(operation, sight.now):
        refuse_change(tx, operation, deployment)


def _answers(tx: Transaction, deployment: Deployment, operation: Operation, sight: Sight) -> bool:
    """Whether a request that comes now finds the deployed model, or that is not to be known."""
    since = max(entered_at(tx, deployment), operation.created_at)
    if sight.now - since >= GATEWAY_WAIT_S:
        return True
    if operation.targets["deployed_model"] not in (sight.bound or frozenset()):
        return False
    ready = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=ReplicaState.READY)
    routed = sight.routed or frozenset()
    return deployment.state is DeploymentState.ASLEEP or any(one.id in routed for one in ready)


def _settle_undeploy(tx: Transaction, operation: Operation) -> None:
    if tx.get(DeployedModel, scope=operation.scope, id=operation.targets["deployed_model"]) is None:
        tx.move(operation, OperationState.SUCCEEDED)


def _settle_delete_endpoint(tx: Transaction, operation: Operation) -> None:
    endpoint_id = operation.targets["endpoint"]
    if tx.list(DeployedModel, scope=operation.scope, endpoint_id=endpoint_id, limit=1):
        return
    endpoint = tx.get(Endpoint, scope=operation.scope, id=endpoint_id)
    if endpoint is not None:
        tx.delete(endpoint)
    tx.move(operation, OperationState.SUCCEEDED)
