"""Whose request it is."""

from __future__ import annotations

import time

from headrace.contracts.vertex.service_accounts import is_token, key_id_of, unknown_signer, verify_token
from headrace.gateway.request_head import RequestHead
from headrace.gateway.routing_table import RoutingTable
from headrace.gateway.verified_tokens import VerifiedToken
from headrace.resources.access import Principal, secret_hash
from headrace.resources.errors import NoKey, UnknownKey

_HOW = "Send `Authorization: Bearer KEY`; `headrace keys create` makes a key."


def key_of(head: RequestHead) -> str | None:
    """What a request shows: ``Authorization: Bearer KEY``, or ``x-goog-api-key`` as Google's clients have it."""
    authorization = head.header(b"authorization")
    if authorization is not None:
        kind, _, key = authorization.decode("latin-1").strip().partition(" ")
        return key.strip() if kind.lower() == "bearer" else None
    key_header = head.header(b"x-goog-api-key")
    return key_header.decode("latin-1").strip() if key_header is not None else None


def authenticate(head: RequestHead, table: RoutingTable) -> Principal:
    """The owner of the request's key, or of the key that signed its token.

    Keys are looked up by their SHA-256, so timing tells nothing about them.

    Raises:
        NoKey: The request shows none.
        UnknownKey: It is unknown or revoked.
        BadToken: It is a token that no key of ours signed so.
        TokenExpired: It is one that was good.
    """
    key = key_of(head)
    if not key:
        elsewhere = "It has an X-Api-Key, which nobody reads here." if head.header(b"x-api-key") else ""
        raise NoKey("The request carries no key.", evidence=elsewhere, fix=_HOW)
    principal = table.principal(secret_hash(key))
    if principal is not None:
        return principal
    if is_token(key):
        return authenticate_token(key, table)[0]
    raise UnknownKey("The key is unknown or was revoked.", fix=_HOW)


def authenticate_token(token: str, table: RoutingTable) -> tuple[Principal, float]:
    """The owner of the key that signed a token, and until when (Unix seconds) the token is good.

    Its signature is looked at once (some 50 µs); whether its key was revoked since, each time.

    Raises:
        UnknownKey: No key that is good signed it.
        BadToken: That key did not sign it so.
        TokenExpired: It was good.
    """
    digest, now = secret_hash(token), time.time()
    found = table.tokens.find(digest, now)
    key_id = found.key_id if found is not None else key_id_of(token)
    signer = table.signer(key_id)
    if signer is None:
        raise unknown_signer(key_id)
    if found is None:
        project, public_key = signer.principal.project, signer.public_key
        until = verify_token(token, key_id=key_id, project=project, public_key=public_key, now=now)
        found = VerifiedToken(key_id, until)
        table.tokens.keep(digest, found)
    return signer.principal, found.good_until
