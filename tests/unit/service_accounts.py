"""Service accounts for tests: one pair of RSA keys for all, because making one takes a while."""

from __future__ import annotations

import functools
import time
from typing import Any

import jwt

from headrace.contracts.vertex.service_accounts import client_email, service_account_file
from headrace.control.commands import KeyPair, new_key_pair
from headrace.resources.access import Principal, Role, secret_hash
from headrace.resources.snapshot import KeyRoute

KEY_ID = "7000000000000000001"
PROJECT = "default"
TOKEN_URI = "http://127.0.0.1:1/token"


@functools.cache
def pair() -> KeyPair:
    """The pair of the service account."""
    return new_key_pair()


@functools.cache
def other_pair() -> KeyPair:
    """Somebody else's."""
    return new_key_pair()


def account_file(*, key_id: str = KEY_ID, project: str = PROJECT, token_uri: str = TOKEN_URI) -> dict[str, str]:
    """Its file."""
    return service_account_file(key_id=key_id, project=project, private_key=pair().private_key, token_uri=token_uri)


def key_route(role: Role = Role.PREDICTOR, *, project: str = PROJECT, **more: Any) -> KeyRoute:
    """The key as the gateway knows it."""
    principal = Principal(KEY_ID, "batch jobs", project, role)
    return KeyRoute(
        secret_hash=secret_hash("given to nobody"), principal=principal, public_key=pair().public_key, **more
    )


def token(
    *,
    private_key: str = "",
    algorithm: str = "RS256",
    headers: dict[str, Any] | None = None,
    project: str = PROJECT,
    **claims: Any,
) -> str:
    """A token as Google's libraries sign it, or with one thing about it different; a claim of None is left out."""
    now = time.time()
    email = client_email(KEY_ID, project)
    said = {"iss": email, "sub": email, "aud": "https://aiplatform.googleapis.com/", "iat": now, "exp": now + 3600}
    return jwt.encode(
        {name: value for name, value in (said | claims).items() if value is not None},
        private_key or pair().private_key,
        algorithm,
        headers={"kid": KEY_ID} | (headers or {}),
    )
