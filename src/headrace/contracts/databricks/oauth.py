"""OAuth for machines as Databricks' clients use it: what they discover, and client credentials (RFC 6749, 4.4).

The access token is the client's secret itself, checked: see `headrace.gateway.client_credentials` for why.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec

from headrace.contracts.oauth import BadGrant, read_form, require_grant_type
from headrace.resources.errors import HeadraceError

CONFIG_PATH: Final = "/.well-known/databricks-config"
OIDC: Final = "/oidc"
DISCOVERY_PATHS: Final = (
    f"{OIDC}/.well-known/oauth-authorization-server",
    f"{OIDC}/.well-known/openid-configuration",
)
TOKEN_PATH: Final = f"{OIDC}/v1/token"

GRANT_TYPE: Final = "client_credentials"
WORKSPACE_ID: Final = "1"
"""A server is one workspace."""

EXPIRES_IN_S: Final = 3600
"""When a client asks again; what it has is good for as long as its key is."""

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class Client(msgspec.Struct, frozen=True):
    """Who asks for a token."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"Client({self.id!r})"  # never the secret


def base_url(scheme: str, host: bytes | None) -> str:
    """The address by which a client reached the server, from its ``Host``; one that is no host is not told back."""
    text = (host or b"").decode("latin-1")
    return f"{scheme}://{text if _HOST.fullmatch(text) else 'localhost'}"


def config_json(base: str) -> dict[str, Any]:
    """``/.well-known/databricks-config``. Clients know three clouds and take the first for none of the others."""
    return {"oidc_endpoint": f"{base}{OIDC}", "workspace_id": WORKSPACE_ID, "cloud": "AWS"}


def discovery_json(base: str) -> dict[str, Any]:
    """RFC 8414. There is no authorization endpoint behind its address: nobody signs in here with a browser."""
    return {
        "issuer": f"{base}{OIDC}",
        "authorization_endpoint": f"{base}{OIDC}/v1/authorize",
        "token_endpoint": f"{base}{TOKEN_PATH}",
        "grant_types_supported": [GRANT_TYPE],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "response_types_supported": [],
    }


def read_client(body: bytes, authorization: str) -> Client:
    """The client of a request for a token: in the header (``Basic``), or in the form.

    Raises:
        BadGrant: The request is none, or shows no client.
    """
    fields = read_form(body)
    require_grant_type(fields.get("grant_type", ""), GRANT_TYPE)
    scheme, _, encoded = authorization.strip().partition(" ")
    if scheme.lower() == "basic":
        return _basic(encoded)
    client = Client(fields.get("client_id", ""), fields.get("client_secret", ""))
    if not client.id or not client.secret:
        raise BadGrant("invalid_client", "The request shows no client_id and client_secret.")
    return client


def token_json(client: Client) -> dict[str, Any]:
    """The answer to a client whose secret is good."""
    return {
        "access_token": client.secret,
        "token_type": "Bearer",
        "expires_in": EXPIRES_IN_S,
        "scope": "all-apis",
    }


def refusal_status(error: BadGrant | HeadraceError) -> int:
    """401 where the client is the matter, else 400."""
    return 400 if isinstance(error, BadGrant) and error.error != "invalid_client" else 401


def _basic(encoded: str) -> Client:
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise BadGrant("invalid_client", "The Authorization header is not Basic's base64.") from error
    client_id, separator, secret = text.partition(":")
    if not separator or not client_id or not secret:
        raise BadGrant("invalid_client", "The Authorization header has no client and secret.")
    return Client(unquote_plus(client_id), unquote_plus(secret))
