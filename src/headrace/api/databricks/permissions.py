"""Who may do what with a serving endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response

from headrace.api.access import Route
from headrace.api.databricks.found import of_id
from headrace.api.description import STRING, Description, Shape, listed, record
from headrace.api.requests import answer, body_of, context_of, principal_of
from headrace.contracts.databricks.endpoints import serving_id
from headrace.contracts.databricks.permissions import Granted, PermissionsBody, levels_json, permissions_json
from headrace.contracts.databricks.reading import read_message
from headrace.control import commands
from headrace.control.access_lists import granted_of
from headrace.resources.access import Permission
from headrace.store import Transaction

_PATH = "/api/2.0/permissions/serving-endpoints/{id}"
_LEVELS = f"{_PATH}/permissionLevels"
_ANSWER: Shape = record(object_id=STRING, object_type=STRING, access_control_list={"type": "array"})


async def get_permissions(request: Request) -> Response:
    """The endpoint's access list; empty where it has none and roles alone decide."""

    def read(tx: Transaction) -> tuple[str, list[Granted] | None]:
        endpoint = of_id(tx, request, "CAN_VIEW")
        return serving_id(endpoint), granted_of(endpoint)

    return answer(permissions_json(*await context_of(request).read(read)))


async def put_permissions(request: Request) -> Response:
    """Give the endpoint this access list, and no other.

    An empty list lets nobody but admins in; without a list in the body there is none any more. Whoever sets one and is
    no admin stays on it.
    """
    body = read_message(await body_of(request), PermissionsBody)

    def change(tx: Transaction) -> tuple[str, list[Granted] | None]:
        endpoint = of_id(tx, request, "CAN_MANAGE")
        granted = commands.set_permissions(tx, endpoint, body.access_control_list, principal_of(request))
        return serving_id(endpoint), granted

    return answer(permissions_json(*await context_of(request).write(change)))


async def patch_permissions(request: Request) -> Response:
    """Put some on the endpoint's access list, or change their level; the others stay."""
    body = read_message(await body_of(request), PermissionsBody)

    def change(tx: Transaction) -> tuple[str, list[Granted] | None]:
        endpoint, entries = of_id(tx, request, "CAN_MANAGE"), body.access_control_list or ()
        granted = commands.patch_permissions(tx, endpoint, entries, principal_of(request))
        return serving_id(endpoint), granted

    return answer(permissions_json(*await context_of(request).write(change)))


async def get_levels(request: Request) -> Response:
    """The levels that there are, from the least to the most."""
    await context_of(request).read(lambda tx: of_id(tx, request, "CAN_VIEW"))
    return answer(levels_json())


ROUTES = (
    Route("GET", _PATH, Permission.READ, get_permissions),
    Route("PUT", _PATH, Permission.DEPLOY, put_permissions),
    Route("PATCH", _PATH, Permission.DEPLOY, patch_permissions),
    Route("GET", _LEVELS, Permission.READ, get_levels),
)
DESCRIPTIONS: Mapping[str, Description] = {
    f"GET {_PATH}": Description(answer=_ANSWER, errors="databricks"),
    f"PUT {_PATH}": Description(body=PermissionsBody, body_required=False, answer=_ANSWER, errors="databricks"),
    f"PATCH {_PATH}": Description(body=PermissionsBody, body_required=False, answer=_ANSWER, errors="databricks"),
    f"GET {_LEVELS}": Description(
        answer=listed("permission_levels", record(permission_level=STRING, description=STRING)), errors="databricks"
    ),
}
