"""Who may change an endpoint that has an access list: the same, whichever contract they change it through."""

from __future__ import annotations

from fastapi import Request

from headrace.api.requests import principal_of
from headrace.control.access_lists import require_level
from headrace.control.profiling import going_by
from headrace.control.standing import Standing
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.models import ModelVersion
from headrace.resources.names import Scope
from headrace.store import Transaction


def require_manager(tx: Transaction, request: Request, scope: Scope, endpoint_id: str) -> None:
    """Hold that whoever asks may change an endpoint; of one that is not there, nothing is held.

    Args:
        tx: The transaction that changes it.
        request: Whose key it is.
        scope: Where the endpoint is.
        endpoint_id: Its id; may be empty.

    Raises:
        NotOnAccessList: It has a list, and they are not on it with ``CAN_MANAGE``.
    """
    endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id) if endpoint_id else None
    if endpoint is not None:
        require_level(endpoint, principal_of(request), "CAN_MANAGE")


def require_manager_of_deployed_model(
    tx: Transaction, request: Request, scope: Scope, endpoint_id: str, deployed_model_id: str
) -> None:
    """The same of every endpoint that shares the deployment of one endpoint's deployed model.

    Raises:
        NotOnAccessList: As `require_manager`.
    """
    require_manager(tx, request, scope, endpoint_id)
    deployed = tx.get(DeployedModel, scope=scope, id=deployed_model_id)
    if deployed is not None and deployed.endpoint_id == endpoint_id:
        require_manager_of_deployment(tx, request, scope, deployed.deployment_id)


def require_manager_of_sold(tx: Transaction, request: Request, version: ModelVersion, standing: Standing) -> None:
    """The same of every endpoint whose guarantee, and so its replicas, a profile of a version decides on.

    Raises:
        NotOnAccessList: As `require_manager`.
    """
    for deployment in going_by(tx, version, standing):
        require_manager_of_deployment(tx, request, version.scope, deployment.id)


def require_manager_of_deployment(tx: Transaction, request: Request, scope: Scope, deployment_id: str) -> None:
    """The same of every endpoint that leads to a deployment.

    Raises:
        NotOnAccessList: As `require_manager`.
    """
    for bound in tx.list(DeployedModel, scope=scope, deployment_id=deployment_id):
        require_manager(tx, request, scope, bound.endpoint_id)
