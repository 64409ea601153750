"""Access lists of endpoints, and their rate limits: what the rows keep of them, as the gateway and the API hold it.

A list narrows what roles allow and never widens it. Keys with the role admin are never kept out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.contracts.databricks.ai_gateway import AiGatewayBody
from headrace.contracts.databricks.kept import kept_of
from headrace.contracts.databricks.permissions import Granted, Level, allows, granted_in
from headrace.contracts.databricks.rate_limits import RateLimit, endpoint_limits, rate_limits_in
from headrace.resources.access import EVERY_PROJECT, Permission, Principal
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import KeyNotFound, NotOnAccessList
from headrace.resources.limits import EndpointLimits
from headrace.resources.operations import ApiKey


def granted_of(endpoint: Endpoint) -> list[Granted] | None:
    """Its access list; None where it has none, and roles alone decide."""
    return granted_in(kept_of(endpoint.kept).get("permissions"))


def callers_of(endpoint: Endpoint) -> frozenset[str] | None:
    """The ids of the keys that may query it; None where it has no list."""
    granted = granted_of(endpoint)
    if granted is None:
        return None
    return frozenset(one.key_id for one in granted if allows(one.level, "CAN_QUERY"))


def level_of(endpoint: Endpoint, principal: Principal) -> Level | None:
    """The level that somebody has at an endpoint, by its list or, where it has none, by the key's role."""
    project, granted = endpoint.scope.project, granted_of(endpoint)
    if principal.may(Permission.ADMINISTER, project):
        return "CAN_MANAGE"
    if granted is not None:
        found: list[Level] = [one.level for one in granted if one.key_id == principal.key_id]
        return next((level for level in found if allows(level, "CAN_MANAGE")), found[0] if found else None)
    if principal.may(Permission.DEPLOY, project):
        return "CAN_MANAGE"
    if principal.may(Permission.PREDICT, project):
        return "CAN_QUERY"
    return "CAN_VIEW" if principal.may(Permission.READ, project) else None


def require_level(endpoint: Endpoint, principal: Principal, wanted: Level) -> None:
    """Hold that somebody may do at an endpoint what takes a level. What it takes of their role is held elsewhere.

    Raises:
        NotOnAccessList: The endpoint has a list, and they are not on it with that level.
    """
    if granted_of(endpoint) is None:
        return
    level = level_of(endpoint, principal)
    if level is None or not allows(level, wanted):
        raise NotOnAccessList(
            f"{principal.name!r} does not have {wanted} at endpoint {endpoint.id}.",
            evidence=f"The endpoint has an access list, where key {principal.key_id} has {level or 'nothing'}.",
            fix="Ask whoever manages the endpoint to change its list: docs/databricks-operations.md.",
        )


def limits_of(endpoint: Endpoint, keys: Sequence[ApiKey]) -> EndpointLimits | None:
    """What may be asked of it in any minute; None where nothing limits that.

    Args:
        endpoint: With what is kept of it.
        keys: All that are good.
    """
    kept = kept_of(endpoint.kept)
    said = [*rate_limits_in(kept.get("rate_limits")), *(ai_gateway_of(endpoint).rate_limits or ())]
    if not said:
        return None
    project = endpoint.scope.project

    def key_ids(limit: RateLimit) -> list[str]:
        service = limit.counts == "service_principal"
        return [key.id for key in keys_named(keys, limit.principal or "", service=service, project=project)]

    return endpoint_limits(said, key_ids)


def ai_gateway_of(endpoint: Endpoint) -> AiGatewayBody:
    """What is kept of its AI gateway."""
    try:
        return msgspec.convert(kept_of(endpoint.kept).get("ai_gateway") or {}, AiGatewayBody)
    except msgspec.ValidationError:
        return AiGatewayBody()


def keys_named(keys: Sequence[ApiKey], who: str, *, service: bool, project: str) -> list[ApiKey]:
    """The good keys that a principal stands for: the one of this id, or all of this name that reach the project.

    Args:
        keys: Among which.
        who: A name or an id.
        service: Whether a service account is meant; else no name of one counts.
        project: Of the endpoint.
    """
    reaching = [key for key in keys if key.revoked_at is None and key.project in (project, EVERY_PROJECT)]
    by_id = [key for key in reaching if key.id == who]
    return by_id or [key for key in reaching if key.name == who and bool(key.public_key) == service]


def require_keys(keys: Sequence[ApiKey], who: str, *, service: bool, project: str) -> list[ApiKey]:
    """As `keys_named`; at least one.

    Raises:
        KeyNotFound: There is none.
    """
    found = keys_named(keys, who, service=service, project=project)
    if not found:
        what = "service account" if service else "key"
        raise KeyNotFound(
            f"There is no good {what} {who[:80]!r} that reaches project {project!r}.",
            evidence="A principal is the name or the id of a key; a service principal, of a service account.",
            fix="`headrace keys` lists them.",
        )
    return found
