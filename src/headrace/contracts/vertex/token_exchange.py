"""The token endpoint as Google's libraries use it: an assertion in, an access token out (RFC 7523, RFC 6749).

Nothing is made here. The access token is the assertion itself, verified: see `service_accounts` for why.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import parse_qsl

import msgspec

from headrace.contracts.vertex.service_accounts import LEEWAY_S
from headrace.resources.errors import BadField, HeadraceError, page_url

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_MOST_FIELDS = 16


class BadExchange(Exception):
    """What was sent is no exchange of an assertion.

    Attributes:
        error: RFC 6749's word for it, section 5.2.
        description: A sentence.
        code: The stable code that the log gets.
    """

    code: ClassVar[str] = BadField.code

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


class TokenRequest(msgspec.Struct, frozen=True):
    """The fields of an exchange."""

    grant_type: str = ""
    assertion: str = ""


def read_token_request(body: bytes, content_type: str) -> str:
    """The assertion in a request's body: a form, as the standard has it, or JSON.

    Raises:
        BadExchange: There is none.
    """
    request = _from_json(body) if content_type.partition(";")[0].strip().lower() == "application/json" else _form(body)
    if request.grant_type != GRANT_TYPE:
        raise BadExchange("unsupported_grant_type" if request.grant_type else "invalid_request", _WANTED)
    if not request.assertion:
        raise BadExchange("invalid_request", "There is no assertion.")
    return request.assertion


_WANTED = f"grant_type must be {GRANT_TYPE}."


def _from_json(body: bytes) -> TokenRequest:
    try:
        return msgspec.json.decode(body, type=TokenRequest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadExchange("invalid_request", "The body is no JSON object with grant_type and assertion.") from error


def _form(body: bytes) -> TokenRequest:
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:  # `UnicodeDecodeError` among them
        raise BadExchange("invalid_request", "The body is no form with grant_type and assertion.") from error
    names = [name for name, _ in fields]
    if len(set(names)) != len(names):
        raise BadExchange("invalid_request", "A field is there twice.")
    known = dict(fields)
    return TokenRequest(known.get("grant_type", ""), known.get("assertion", ""))


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


def token_refusal(error: BadExchange | HeadraceError) -> dict[str, Any]:
    """RFC 6749, section 5.2; of what is said here nothing but its message reaches the user of Google's libraries."""
    if isinstance(error, BadExchange):
        return {"error": error.error, "error_description": error.description}
    return {"error": "invalid_grant", "error_description": str(error), "error_uri": page_url(error.code)}
