"""Whose request it is."""

from __future__ import annotations

from headrace.gateway.request_head import RequestHead
from headrace.gateway.routing_table import RoutingTable
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
    """The owner of the request's key. Keys are looked up by their SHA-256, so timing tells nothing about them.

    Raises:
        NoKey: The request shows none.
        UnknownKey: It is unknown or revoked.
    """
    key = key_of(head)
    if not key:
        raise NoKey("The request carries no key.", fix=_HOW)
    principal = table.principal(secret_hash(key))
    if principal is None:
        raise UnknownKey("The key is unknown or was revoked.", fix=_HOW)
    return principal
