"""Our nouns as the native API's JSON: their fields as they are, with their full names, without their secrets."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request

from headrace.api.requests import principal_of
from headrace.resources.access import EVERY_PROJECT, Permission
from headrace.resources.deployments import Deployment
from headrace.store import Row

SECRETS = frozenset({"nonce", "secret_hash"})
"""Fields that no answer has."""


def noun_json(row: Row) -> dict[str, Any]:
    """A row, without what would let its reader in somewhere."""
    fields = msgspec.to_builtins(row)
    assert isinstance(fields, dict)
    wire = {name: value for name, value in fields.items() if name not in SECRETS}
    scope = wire.pop("scope", None)
    if scope is not None:
        wire |= scope
    name = getattr(row, "name", None)
    return wire if name is None else {"name": name, **wire}


def deployment_json(deployment: Deployment) -> dict[str, Any]:
    """A deployment, with the number of replicas that should run now."""
    return noun_json(deployment) | {"wanted_replicas": deployment.wanted_replicas}


def reach(request: Request) -> dict[str, Any]:
    """The rows that a caller may see and asked for, as conditions of `Transaction.list`.

    Raises:
        RoleMissing: The query names a project that the key does not reach.
    """
    principal, query = principal_of(request), request.query_params
    project = query.get("project", principal.project)
    principal.require(Permission.READ, project)
    conditions = {} if project == EVERY_PROJECT else {"project": project}
    return conditions | ({"location": query["location"]} if "location" in query else {})


def reach_of_project(request: Request) -> dict[str, Any]:
    """As `reach`, for rows that have a project and no location."""
    return {name: value for name, value in reach(request).items() if name == "project"}
