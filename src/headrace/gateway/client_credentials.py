"""What Databricks' clients discover, and the access tokens that they are given for a client's id and secret.

The token is the secret itself, once it is known whose it is: a token made of it would need a second secret, that every
gateway and control know and that whoever has it can make tokens with, and would outlive a key that is revoked. So the
gateway answers by its snapshot, while control is down, too; and a client that asks again each hour is told at once if
its key is gone.
"""

from __future__ import annotations

import hmac
from typing import Final

from headrace.contracts.databricks.oauth import (
    CONFIG_PATH,
    base_url,
    config_json,
    discovery_json,
    read_client,
    refusal_status,
    token_json,
)
from headrace.contracts.oauth import BadGrant, refusal_json
from headrace.contracts.vertex.service_accounts import is_token
from headrace.gateway.answering import send_json
from headrace.gateway.authentication import authenticate_token
from headrace.gateway.exchange import Exchange
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_head import Headers, RequestHead
from headrace.gateway.routing_table import RoutingTable
from headrace.resources.access import Principal, secret_hash
from headrace.resources.errors import Unauthenticated, UnknownKey

LARGEST_BODY_BYTES: Final = 32 * 1024
"""A service account's signed token, percent-encoded three for one."""

_NOT_KEPT: Headers = [(b"cache-control", b"no-store")]
"""RFC 6749, section 5.1."""


async def tell_ways_in(exchange: Exchange, record: RequestRecord) -> None:
    """Answer what a client discovers before it has a token."""
    head = exchange.head
    base = base_url(head.scheme, head.header(b"host"))
    told = config_json(base) if record.path == CONFIG_PATH else discovery_json(base)
    await send_json(exchange, record, told)


async def grant_token(exchange: Exchange, record: RequestRecord, table: RoutingTable) -> None:
    """Answer with a token, or with RFC 6749's refusal.

    Raises:
        BodyTooLarge: It has more than `LARGEST_BODY_BYTES`.
    """
    body = await exchange.read_all(LARGEST_BODY_BYTES)
    try:
        client = read_client(body, _authorization(exchange.head))
        principal = _owner(client.secret, table)
        if not hmac.compare_digest(principal.key_id.encode(), client.id.encode()):
            raise UnknownKey(
                "The secret is not this client's.",
                evidence="It is known here, under another id.",
                fix="client_id is the key's id: `headrace keys list` shows it.",
            )
    except (BadGrant, Unauthenticated) as error:
        record.code = error.code
        status = refusal_status(error)
        challenge: Headers = [(b"www-authenticate", b"Basic")] if status == 401 else []
        told = refusal_json(error, otherwise="invalid_client")
        await send_json(exchange, record, told, status=status, headers=[*_NOT_KEPT, *challenge])
        return
    record.key_id = principal.key_id
    await send_json(exchange, record, token_json(client), headers=_NOT_KEPT)


def _owner(secret: str, table: RoutingTable) -> Principal:
    """Whose secret it is: a key's own, or a token that a service account signed."""
    principal = table.principal(secret_hash(secret))
    if principal is not None:
        return principal
    if is_token(secret):
        return authenticate_token(secret, table)[0]
    raise UnknownKey(
        "The client's secret is unknown, or its key was revoked.",
        fix="client_secret is the key itself; `headrace keys create` makes one.",
    )


def _authorization(head: RequestHead) -> str:
    return (head.header(b"authorization") or b"").decode("latin-1")
