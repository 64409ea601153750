"""The endpoint that a request names, by its name or by the id that Databricks' permissions go by."""

from __future__ import annotations

import hashlib

from fastapi import Request

from headrace.api.databricks.place import workspace_of
from headrace.api.requests import principal_of
from headrace.contracts.databricks.kept import kept_of
from headrace.contracts.databricks.permissions import Level
from headrace.control.access_lists import require_level
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import EndpointNotFound
from headrace.store import Transaction


def id_of(endpoint: Endpoint) -> str:
    """What Databricks' API calls its id: 32 hexadecimal digits, the same for good."""
    kept = kept_of(endpoint.kept).get("endpoint_id")
    return kept if isinstance(kept, str) else hashlib.sha256(endpoint.name.encode()).hexdigest()[:32]


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
    name, scope = request.path_params["name"], workspace_of(request)
    found = tx.get(Endpoint, scope=scope, id=name)
    if found is None:
        found = next((one for one in tx.list(Endpoint, scope=scope) if one.display_name == name), None)
    return _allowed(request, found, f"Endpoint with name {name[:80]!r} does not exist.", level)


def of_id(tx: Transaction, request: Request, level: Level) -> Endpoint:
    """As `named`, of the id in the path."""
    wanted, scope = request.path_params["id"], workspace_of(request)
    found = next((one for one in tx.list(Endpoint, scope=scope) if wanted in (id_of(one), one.id)), None)
    return _allowed(request, found, f"Endpoint with id {wanted[:80]!r} does not exist.", level)


def _allowed(request: Request, found: Endpoint | None, missing: str, level: Level) -> Endpoint:
    if found is None or found.deleting:
        raise EndpointNotFound(missing, fix="GET /api/2.0/serving-endpoints lists them, each with its name and its id.")
    require_level(found, principal_of(request), level)
    return found
