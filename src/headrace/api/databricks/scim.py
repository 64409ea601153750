"""Who a request's key is, as Databricks' clients ask."""

from __future__ import annotations

from fastapi import Request, Response

from headrace.api.requests import answer, principal_of
from headrace.contracts.databricks.oauth import WORKSPACE_ID

_USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"


async def me(request: Request) -> Response:
    """Whose key it is, as SCIM's user."""
    principal = principal_of(request)
    user = {
        "schemas": [_USER_SCHEMA],
        "id": principal.key_id,
        "userName": principal.name,
        "displayName": principal.name,
        "active": True,
    }
    response = answer(user)
    response.headers["x-databricks-org-id"] = WORKSPACE_ID
    return response
