"""``POST /token``: where Google's libraries trade what a service account signed for an access token.

The gateway answers it by its snapshot, so that clients get their next hour while control is down.
"""

from __future__ import annotations

import time
from typing import Final

from headrace.contracts.oauth import BadGrant, refusal_json
from headrace.contracts.vertex.token_exchange import read_token_request, token_answer
from headrace.gateway.answering import send_json
from headrace.gateway.authentication import authenticate_token
from headrace.gateway.exchange import Exchange
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_head import Headers
from headrace.gateway.routing_table import RoutingTable
from headrace.resources.errors import Unauthenticated

LARGEST_BODY_BYTES: Final = 32 * 1024
"""A token, percent-encoded three for one."""

_NOT_KEPT: Headers = [(b"cache-control", b"no-store")]
"""RFC 6749, section 5.1."""


async def exchange_token(exchange: Exchange, record: RequestRecord, table: RoutingTable) -> None:
    """Answer with a token, or with RFC 6749's refusal, which is Google's too: 400 whatever is wrong with it.

    Raises:
        BodyTooLarge: It has more than `LARGEST_BODY_BYTES`.
    """
    body = await exchange.read_all(LARGEST_BODY_BYTES)
    content_type = (exchange.head.header(b"content-type") or b"").decode("latin-1")
    try:
        assertion = read_token_request(body, content_type)
        principal, good_until = authenticate_token(assertion, table)
    except (BadGrant, Unauthenticated) as error:
        record.code = error.code
        await send_json(exchange, record, refusal_json(error, otherwise="invalid_grant"), status=400, headers=_NOT_KEPT)
        return
    record.key_id = principal.key_id
    answer = token_answer(assertion, good_until=good_until, now=time.time())
    await send_json(exchange, record, answer, headers=_NOT_KEPT)
