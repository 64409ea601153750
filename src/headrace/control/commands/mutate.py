"""Change a deployed model in place: the numbers of its replicas, and by what they follow its load."""

from __future__ import annotations

from headrace.control.commands.found import find_deployed_model, find_living_endpoint
from headrace.control.commands.scale import autoscale, check_replicas, resize
from headrace.resources.autoscaling import Autoscaling
from headrace.resources.deployments import Deployment
from headrace.resources.names import Scope, new_id
from headrace.resources.operations import Operation
from headrace.resources.states import OperationState
from headrace.store import Transaction


def mutate_deployed_model(
    tx: Transaction,
    scope: Scope,
    endpoint_id: str,
    deployed_model_id: str,
    *,
    contract: str,
    now: float,
    least: int | None = None,
    most: int | None = None,
    autoscaling: Autoscaling | None = None,
) -> Operation:
    """Have it run at another scale from now on. Endpoints that share its deployment see the same of it.

    The operation is done at once: how far the replicas are, the deployed model's status tells.

    Args:
        tx: An open transaction.
        scope: Where.
        endpoint_id: The endpoint.
        deployed_model_id: Which of its deployed models.
        contract: The API it was asked through.
        now: Unix seconds.
        least: Replicas that run; None: as many as now.
        most: The most that may ever run; None: as many as now.
        autoscaling: By what it scales from now on; None: as until now.

    Raises:
        EndpointNotFound: There is no such endpoint.
        DeploymentNotFound: It has no such deployed model, or that one's deployment ends.
        BadField: There cannot be so many replicas.
    """
    endpoint = find_living_endpoint(tx, scope, endpoint_id)
    deployed = find_deployed_model(tx, scope, endpoint_id, deployed_model_id)
    deployment = tx.get(Deployment, scope=scope, id=deployed.deployment_id)
    assert deployment is not None, "a foreign key holds it"
    least = deployment.min_replicas if least is None else least
    most = deployment.max_replicas if most is None else most
    check_replicas(least, most)
    resize(tx, scope, deployment.id, least=least, most=most)
    if autoscaling is not None:
        autoscale(tx, scope, deployment.id, autoscaling)
    operation = Operation(
        scope=scope,
        id=new_id(),
        parent=endpoint.name,
        kind="mutate_deployed_model",
        contract=contract,
        targets={
            "endpoint": endpoint_id,
            "model": deployment.model_id,
            "version": deployment.model_version,
            "deployment": deployment.id,
            "deployed_model": deployed_model_id,
            "display_name": deployed.display_name,
        },
        created_at=now,
        updated_at=now,
    )
    tx.insert(operation)
    return tx.move(operation, OperationState.SUCCEEDED)
