"""What every token endpoint has of OAuth (RFC 6749): its form, and its refusals."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import parse_qsl

from headrace.resources.errors import BadField, HeadraceError, page_url

_MOST_FIELDS = 16


class BadGrant(Exception):
    """What was sent is no request for a token.

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


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a request's form.

    Raises:
        BadGrant: It is none, or has a field twice, which section 3.2 forbids.
    """
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:  # `UnicodeDecodeError` among them
        raise BadGrant("invalid_request", "The body is no form.") from error
    if len({name for name, _ in fields}) != len(fields):
        raise BadGrant("invalid_request", "A field is there twice.")
    return dict(fields)


def require_grant_type(sent: str, wanted: str) -> None:
    """Hold that a request is of the one kind that an endpoint answers.

    Raises:
        BadGrant: It is of none, or of another.
    """
    if sent != wanted:
        raise BadGrant("unsupported_grant_type" if sent else "invalid_request", f"grant_type must be {wanted} here.")


def refusal_json(error: BadGrant | HeadraceError, *, otherwise: str) -> dict[str, Any]:
    """Section 5.2.

    Args:
        error: What is wrong with the request, or with whom it is of.
        otherwise: The standard's word for the latter.
    """
    if isinstance(error, BadGrant):
        return {"error": error.error, "error_description": error.description}
    return {"error": otherwise, "error_description": str(error), "error_uri": page_url(error.code)}
