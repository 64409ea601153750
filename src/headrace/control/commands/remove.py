"""Undeploy and delete: nothing vanishes before its running requests had their time."""

from __future__ import annotations

import msgspec

from headrace.control.commands.found import find_deployed_model, find_endpoint
from headrace.control.commands.registry import require_unused
from headrace.control.guarantees import follow
from headrace.control.operations import settle_operations
from headrace.control.rollouts.life import open_rollout, require_no_rollout, roll_back
from headrace.control.splits import drop_older_splits
from headrace.control.timeline import note
from headrace.control.traffic import hand_over, set_split, staying
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, ModelNotFound, StillInUse
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope, new_id
from headrace.resources.operations import Operation, OperationKind
from headrace.resources.states import DeploymentState, OperationState
from headrace.store import Transaction


def undeploy(
    tx: Transaction,
    scope: Scope,
    endpoint_id: str,
    deployed_model_id: str,
    *,
    contract: str,
    now: float,
    traffic: dict[str, int] | None = None,
    strict: bool = False,
) -> Operation:
    """Take a deployed model off its endpoint; its deployment drains once no endpoint has it.

    Args:
        tx: An open transaction.
        scope: Where.
        endpoint_id: The endpoint.
        deployed_model_id: The one to take off.
        contract: The API it was asked through.
        now: Unix seconds.
        traffic: The split from now on, by deployed model; None: its share goes to the others in proportion.
        strict: Refuse to hand its share on where no split says to whom, as Vertex AI does.

    Raises:
        EndpointNotFound: There is no such endpoint.
        DeploymentNotFound: The endpoint has no such deployed model.
        RolloutRunning: A rollout of another deployed model decides on the endpoint's traffic.
        BadField: The split is not one, or leaves traffic to the one that goes.
        StillInUse: It has traffic that others could take, nobody said which, and that is asked for (`strict`).
    """
    endpoint = find_endpoint(tx, scope, endpoint_id)
    rollout = open_rollout(tx, scope, endpoint_id)
    if rollout is not None and rollout.deployed_model_id == deployed_model_id:
        roll_back(tx, rollout, "Rolled back: the canary is undeployed.")
    require_no_rollout(tx, scope, endpoint_id)
    deployed = find_deployed_model(tx, scope, endpoint_id, deployed_model_id)
    if strict:
        _require_traffic_told(tx, deployed, traffic)
    targets = {
        "endpoint": endpoint_id,
        "deployed_model": deployed_model_id,
        "deployment": deployed.deployment_id,
    }
    operation = _begin(tx, scope, "undeploy", parent=endpoint.name, contract=contract, targets=targets, now=now)
    deployed = hand_over(tx, deployed)
    if traffic is not None:
        drop_older_splits(tx, scope, endpoint_id)
        set_split(tx, scope, endpoint_id, {**traffic, deployed_model_id: 0})
    _take_off(tx, deployed)
    settle_operations(tx, scope)
    return _as_stored(tx, operation)


def delete_endpoint(
    tx: Transaction, scope: Scope, endpoint_id: str, *, force: bool, contract: str, now: float
) -> Operation:
    """Delete an endpoint; with ``force``, what is deployed on it is taken off first.

    Raises:
        EndpointNotFound: There is no such endpoint.
        StillInUse: It has deployed models, and ``force`` was not asked for.
    """
    endpoint = find_endpoint(tx, scope, endpoint_id)
    rollout = open_rollout(tx, scope, endpoint_id)
    if rollout is not None:  # undone with all else where the endpoint is not deleted after all
        roll_back(tx, rollout, "Rolled back: the endpoint is deleted.")
    deployed = tx.list(DeployedModel, scope=scope, endpoint_id=endpoint_id)
    if deployed and not force:
        raise StillInUse(
            f"Endpoint {endpoint_id!r} has deployed models.",
            evidence=f"They are {', '.join(one.id for one in deployed)}.",
            fix="Undeploy them first, or delete with force.",
        )
    operation = _begin(
        tx,
        scope,
        "delete_endpoint",
        parent=endpoint.name,
        contract=contract,
        targets={"endpoint": endpoint_id},
        now=now,
    )
    tx.update(msgspec.structs.replace(endpoint, deleting=True))
    for one in deployed:
        _take_off(tx, one)
    settle_operations(tx, scope)
    return _as_stored(tx, operation)


def delete_model(tx: Transaction, scope: Scope, model_id: str, *, contract: str, now: float) -> Operation:
    """Delete a model and all its versions; the files at their addresses are left alone.

    Raises:
        ModelNotFound: There is no such model.
        StillInUse: A version of it is deployed, or its replicas are still draining.
    """
    model = tx.get(Model, scope=scope, id=model_id)
    if model is None:
        raise ModelNotFound(f"There is no model {model_id!r}.", fix="`headrace models` lists them, ids first.")
    require_unused(tx, scope, model_id, what=f"Model {model_id!r}")
    operation = _begin(
        tx, scope, "delete_model", parent=model.name, contract=contract, targets={"model": model_id}, now=now
    )
    for version in tx.list(ModelVersion, scope=scope, model_id=model_id):
        tx.delete(version)
    tx.delete(model)
    settle_operations(tx, scope)
    return _as_stored(tx, operation)


def _require_traffic_told(tx: Transaction, deployed: DeployedModel, traffic: dict[str, int] | None) -> None:
    """Hold that it is known who gets what the one that goes leaves."""
    if traffic and traffic.get(deployed.id):
        raise BadField(
            "The traffic split leaves traffic to the model that is undeployed.",
            evidence=f"{deployed.id} would have {traffic[deployed.id]} %.",
            fix="Give its share to the others.",
        )
    others = [one.id for one in staying(tx, deployed.scope, deployed.endpoint_id) if one.id != deployed.id]
    if deployed.traffic and others and traffic is None:
        raise StillInUse(
            f"Deployed model {deployed.id!r} has {deployed.traffic} % of the endpoint's traffic.",
            evidence=f"Beside it are {', '.join(others)}.",
            fix="Say in trafficSplit what each of them gets from now on, or take its traffic first.",
        )


def _take_off(tx: Transaction, deployed: DeployedModel) -> None:
    """Drain its deployment, unless another endpoint has it too: then only the binding goes."""
    bindings = tx.list(DeployedModel, scope=deployed.scope, deployment_id=deployed.deployment_id)
    deployment = tx.get(Deployment, scope=deployed.scope, id=deployed.deployment_id)
    assert deployment is not None, "a foreign key holds it"
    if len(bindings) > 1:
        tx.delete(deployed)
        note(tx, deployment, f"Endpoint {deployed.endpoint_id} has it no more; {_others(len(bindings) - 1)}.")
        follow(tx, deployment)
        return
    if deployment.state not in {DeploymentState.DRAINING, DeploymentState.GONE}:
        tx.move(deployment, DeploymentState.DRAINING, detail="Undeploy was asked for; running requests may finish.")


def _others(number: int) -> str:
    return "one other does" if number == 1 else f"{number} others do"


def _begin(
    tx: Transaction,
    scope: Scope,
    kind: OperationKind,
    *,
    parent: str,
    contract: str,
    targets: dict[str, str],
    now: float,
) -> Operation:
    operation = Operation(
        scope=scope,
        id=new_id(),
        parent=parent,
        kind=kind,
        contract=contract,
        targets=targets,
        state=OperationState.RUNNING,
        created_at=now,
        updated_at=now,
    )
    tx.insert(operation)
    return operation


def _as_stored(tx: Transaction, operation: Operation) -> Operation:
    stored = tx.get(Operation, scope=operation.scope, id=operation.id)
    assert stored is not None, "it was inserted in this transaction"
    return stored
