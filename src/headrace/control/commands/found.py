"""What a command is about, found by its ids, or the error that says which of them is not there."""

from __future__ import annotations

from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import DeploymentNotFound, EndpointNotFound
from headrace.resources.names import Scope
from headrace.store import Transaction


def find_endpoint(tx: Transaction, scope: Scope, endpoint_id: str) -> Endpoint:
    """The endpoint, be it one that is being deleted.

    Raises:
        EndpointNotFound: There is none.
    """
    endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id)
    if endpoint is None:
        raise EndpointNotFound(f"There is no endpoint {endpoint_id!r}.")
    return endpoint


def find_living_endpoint(tx: Transaction, scope: Scope, endpoint_id: str) -> Endpoint:
    """The endpoint, if it is not being deleted.

    Raises:
        EndpointNotFound: There is none, or it is.
    """
    endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id)
    if endpoint is None or endpoint.deleting:
        raise EndpointNotFound(f"There is no endpoint {endpoint_id!r} that goes on.")
    return endpoint


def find_deployed_model(tx: Transaction, scope: Scope, endpoint_id: str, deployed_model_id: str) -> DeployedModel:
    """The deployed model, if it is one of the endpoint's.

    Raises:
        DeploymentNotFound: It is not.
    """
    deployed = tx.get(DeployedModel, scope=scope, id=deployed_model_id)
    if deployed is None or deployed.endpoint_id != endpoint_id:
        raise DeploymentNotFound(f"Endpoint {endpoint_id!r} has no deployed model {deployed_model_id!r}.")
    return deployed
