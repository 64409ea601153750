"""Who may see an endpoint that has an access list, and what is deployed on it: the same through every contract.

What is deployed on no endpoint is nobody's, and shown to whom roles let. Of a deployment that several endpoints share
it is enough to be on the list of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from fastapi import Request

from headrace.api.requests import principal_of
from headrace.control.access_lists import granted_of, level_of, require_level
from headrace.resources.access import EVERY_PROJECT, Permission
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.names import Scope
from headrace.resources.operations import Operation
from headrace.store import Transaction


class Hidden(msgspec.Struct, frozen=True):
    """What is not for whoever asks, each by where it is and its id."""

    endpoints: frozenset[tuple[Scope, str]] = frozenset()
    deployments: frozenset[tuple[Scope, str]] = frozenset()


def may_view(request: Request, endpoint: Endpoint) -> bool:
    """Whether whoever asks is on its list, at whichever level, or it has none. Their role is looked at elsewhere."""
    return granted_of(endpoint) is None or level_of(endpoint, principal_of(request)) is not None


def hidden_from(tx: Transaction, request: Request, **conditions: Any) -> Hidden:
    """What is not for whoever asks, of all endpoints where these conditions hold (as in `Transaction.list`)."""
    if principal_of(request).may(Permission.ADMINISTER, EVERY_PROJECT):  # whom no list keeps out
        return Hidden()
    endpoints = frozenset((one.scope, one.id) for one in tx.list(Endpoint, **conditions) if not may_view(request, one))
    if not endpoints:
        return Hidden()
    behind: dict[bool, set[tuple[Scope, str]]] = {True: set(), False: set()}
    for bound in tx.list(DeployedModel, **conditions):
        behind[(bound.scope, bound.endpoint_id) in endpoints].add((bound.scope, bound.deployment_id))
    return Hidden(endpoints, frozenset(behind[True] - behind[False]))


def shown(tx: Transaction, request: Request, operations: Sequence[Operation]) -> list[Operation]:
    """Those of some operations that are about no endpoint which is not for whoever asks."""
    hidden = hidden_among(tx, request, {one.targets["endpoint"] for one in operations if one.targets.get("endpoint")})
    return [one for one in operations if (one.scope, one.targets.get("endpoint", "")) not in hidden]


def hidden_among(
    tx: Transaction, request: Request, endpoint_ids: Iterable[str], **conditions: Any
) -> frozenset[tuple[Scope, str]]:
    """Which of these endpoints are not for whoever asks; the others of the server are not looked at."""
    ids = tuple(set(endpoint_ids))
    about = tx.list(Endpoint, id=ids, **conditions) if ids else []
    return frozenset((one.scope, one.id) for one in about if not may_view(request, one))


def require_viewer(tx: Transaction, request: Request, scope: Scope, endpoint_id: str) -> None:
    """Hold that whoever asks may see an endpoint; of one that is not there, nothing is held.

    Raises:
        NotOnAccessList: It has a list, and they are not on it.
    """
    endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id) if endpoint_id else None
    if endpoint is not None:
        require_level(endpoint, principal_of(request), "CAN_VIEW")


def require_viewer_of_deployment(tx: Transaction, request: Request, scope: Scope, deployment_id: str) -> None:
    """The same of one of the endpoints that lead to a deployment.

    Raises:
        NotOnAccessList: As `require_viewer`, of all of them.
    """
    bound = tx.list(DeployedModel, scope=scope, deployment_id=deployment_id)
    leading = tx.list(Endpoint, scope=scope, id=tuple({one.endpoint_id for one in bound})) if bound else []
    if leading and not any(may_view(request, endpoint) for endpoint in leading):
        require_level(leading[0], principal_of(request), "CAN_VIEW")
