"""The token endpoint as Google's libraries use it: an assertion in, an access token out (RFC 7523, RFC 6749).

Nothing is made here. The access token is the assertion itself, verified: see `service_accounts` for why.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.contracts.oauth import BadGrant, read_form, require_grant_type
from headrace.contracts.vertex.service_accounts import LEEWAY_S

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class TokenRequest(msgspec.Struct, frozen=True):
    """The fields of an exchange."""

    grant_type: str = ""
    assertion: str = ""


def read_token_request(body: bytes, content_type: str) -> str:
    """The assertion in a request's body: a form, as the standard has it, or JSON.

    Raises:
        BadGrant: There is none.
    """
    request = _from_json(body) if content_type.partition(";")[0].strip().lower() == "application/json" else _form(body)
    require_grant_type(request.grant_type, GRANT_TYPE)
    if not request.assertion:
        raise BadGrant("invalid_request", "There is no assertion.")
    return request.assertion


def _from_json(body: bytes) -> TokenRequest:
    try:
        return msgspec.json.decode(body, type=TokenRequest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadGrant("invalid_request", "The body is no JSON object with grant_type and assertion.") from error


def _form(body: bytes) -> TokenRequest:
    fields = read_form(body)
    return TokenRequest(fields.get("grant_type", ""), fields.get("assertion", ""))


def token_answer(assertion: str, *, good_until: float, now: float) -> dict[str, Any]:
    """The answer to a verified assertion.

    Args:
        assertion: It.
        good_until: As `verify_token` tells it, leeway included: that is not promised to anybody.
        now: Unix seconds.
    """
    return {
        "access_token": assertion,
        "token_type": "Bearer",
        "expires_in": max(1, int(good_until - LEEWAY_S - now)),
    }
