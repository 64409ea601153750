"""When a long-running operation is done: decided from the rows it is about, so that no crash can forget one."""

from __future__ import annotations

from headrace.control.sight import Sight
from headrace.control.timeline import entered_at
from headrace.control.traffic import take_all
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import Cancelled
from headrace.resources.names import Scope
from headrace.resources.operations import Operation
from headrace.resources.states import DeploymentState, OperationState, ReplicaState
from headrace.store import Transaction

GATEWAY_WAIT_S = 5.0
"""How long a deployment that is READY waits for the gateway to know: a push takes milliseconds, and a gateway that is
away for longer is no reason to call the deployment unfinished."""


def settle_operations(tx: Transaction, scope: Scope, sight: Sight | None = None) -> None:
    """Complete every running operation whose end has come; without a sight, none that waits for the gateway."""
    for operation in tx.list(Operation, scope=scope, state=OperationState.RUNNING):
        if operation.kind == "deploy":
            _settle_deploy(tx, operation, sight)
        elif operation.kind == "undeploy":
            _settle_undeploy(tx, operation)
        elif operation.kind == "delete_endpoint":
            _settle_delete_endpoint(tx, operation)
        else:
            tx.move(operation, OperationState.SUCCEEDED)  # a model's rows go in the transaction that asks


def deploy_runs(tx: Transaction, deployment: Deployment) -> bool:
    """Whether the deployment still has to become READY for the first time."""
    running = tx.list(Operation, scope=deployment.scope, state=OperationState.RUNNING)
    return any(one.kind == "deploy" and one.targets.get("deployment") == deployment.id for one in running)


def _settle_deploy(tx: Transaction, operation: Operation, sight: Sight | None) -> None:
    deployment = tx.get(Deployment, scope=operation.scope, id=operation.targets["deployment"])
    if deployment is None or deployment.state in {DeploymentState.DRAINING, DeploymentState.GONE}:
        cancelled = Cancelled("The deployment was taken off its endpoint before it was ready.")
        tx.move(operation, OperationState.FAILED, failure=cancelled.failure)
    elif deployment.state is DeploymentState.FAILED:
        tx.move(operation, OperationState.FAILED, failure=deployment.failure)
    elif deployment.state is DeploymentState.READY:
        deployed = tx.get(DeployedModel, scope=operation.scope, id=operation.targets["deployed_model"])
        if deployed is not None and operation.takes_traffic:
            take_all(tx, deployed)
        if sight is not None and _answers(tx, deployment, sight):
            tx.move(operation, OperationState.SUCCEEDED)


def _answers(tx: Transaction, deployment: Deployment, sight: Sight) -> bool:
    """Whether a request that comes now finds the deployment, or that is not to be known."""
    ready = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=ReplicaState.READY)
    routed = sight.routed or frozenset()
    return any(one.id in routed for one in ready) or sight.now - entered_at(tx, deployment) >= GATEWAY_WAIT_S


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
