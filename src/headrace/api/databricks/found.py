"""The endpoint that a request names, by its name or by the id that Databricks' permissions go by."""

from __future__ import annotations

from fastapi import Request

from headrace.api.databricks.place import workspace_of
from headrace.api.requests import principal_of
from headrace.contracts.databricks.endpoints import serving_id
from headrace.contracts.databricks.permissions import Level
from headrace.contracts.databricks.state import state_in
from headrace.control.access_lists import require_level
from headrace.control.serving import find_serving_endpoint
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import EndpointNotFound
from headrace.store import Transaction


def named(tx: Transaction, request: Request, level: Level) -> Endpoint:
    """The endpoint of the name in the path, in the key's workspace.

    Args:
        tx: An open transaction.
        request: With the name.
        level: What whoever asks must have there, if it has an access list.

    Raises:
        EndpointNotFound: There is none.
        NotOnAccessList: The key may not.
    """
    found = find_serving_endpoint(tx, workspace_of(request), request.path_params["name"])
    require_level(found, principal_of(request), level)
    return found


def of_id(tx: Transaction, request: Request, level: Level) -> Endpoint:
    """As `named`, of the id in the path."""
    wanted = request.path_params["id"]
    there = tx.list(Endpoint, scope=workspace_of(request), deleting=False)
    found = next((one for one in there if wanted == serving_id(one)), None)
    if found is None:
        raise EndpointNotFound(
            f"Endpoint with id {wanted[:80]!r} does not exist.",
            fix="GET /api/2.0/serving-endpoints lists them, each with its name and its id.",
        )
    require_level(found, principal_of(request), level)
    return found


def served_name(endpoint: Endpoint, deployed: DeployedModel) -> str:
    """What one of its served entities is called."""
    served = state_in(endpoint.kept).served.get(deployed.id)
    return served.entity.name if served is not None else deployed.display_name or deployed.id
