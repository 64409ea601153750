"""Who may ask an endpoint that has an access list."""

from __future__ import annotations

from headrace.resources.access import Permission, Principal
from headrace.resources.errors import NotOnAccessList
from headrace.resources.snapshot import EndpointRoute


def is_open_to(principal: Principal, endpoint: EndpointRoute) -> bool:
    """Whether an endpoint has no list, or the caller is on it or an admin; the caller's role is looked at elsewhere."""
    callers = endpoint.callers
    if callers is None or principal.key_id in callers:
        return True
    return principal.may(Permission.ADMINISTER, endpoint.scope.project)


def open_to(principal: Principal, endpoint: EndpointRoute) -> EndpointRoute:
    """The endpoint, if this caller may ask it; the caller's role was looked at before.

    Raises:
        NotOnAccessList: It has a list, and the caller is not on it and no admin.
    """
    if is_open_to(principal, endpoint):
        return endpoint
    raise NotOnAccessList(
        f"{principal.name!r} may not query endpoint {endpoint.id}.",
        evidence=f"The endpoint has an access list, and key {principal.key_id} is not on it with CAN_QUERY.",
        fix="Ask whoever manages the endpoint to put the key on its list: docs/databricks-operations.md.",
    )
