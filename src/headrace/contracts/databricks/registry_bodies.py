"""Bodies and queries of the registry's routes: JSON of a stated shape.

Fields that nothing is done with are ignored, as Databricks' own API does: its clients send back whole objects.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from headrace.contracts.databricks.reading import wrong_field
from headrace.resources.errors import BadField, BadJson

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


def read_object(body: bytes, shape: type[S]) -> S:
    """A body as its shape; an empty one is an empty object.

    Raises:
        BadJson: It is not JSON.
        BadField: A field is missing or of the wrong type.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=shape, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_field(error, shape) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(
            "The body is not valid JSON.", evidence=str(error), fix="Send one JSON object, encoded as UTF-8."
        ) from error


def read_query(query: Mapping[str, str], shape: type[S]) -> S:
    """A query string as its shape.

    Raises:
        BadField: A parameter is missing or of the wrong type.
    """
    try:
        return msgspec.convert(dict(query), shape, strict=False)
    except msgspec.ValidationError as error:
        parameters = ", ".join(shape.__struct_fields__)
        raise BadField(
            "The query has a wrong parameter.", evidence=f"{error}.", fix=f"The parameters are: {parameters}."
        ) from error


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a list.

    Attributes:
        max_results: How many; 0 or none: as many as by default.
        page_token: Of the page before.
    """

    max_results: int = 0
    page_token: str = ""

    def page(self, items: Sequence[T], key: Callable[[T], str]) -> tuple[list[T], str]:
        """One page of a list that is sorted by ``key``, and the token of the next (empty on the last).

        A page begins behind the last item of the page before, whether or not that is still there.

        Raises:
            BadField: The number is negative, or the token is none of ours.
        """
        if self.max_results < 0:
            raise BadField(
                "max_results must be 0 or more.",
                evidence=f"It is {self.max_results}.",
                fix=f"Leave it out for pages of {DEFAULT_PAGE_SIZE}.",
            )
        after = _key_of(self.page_token) if self.page_token else None
        size = min(self.max_results or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        rest = [item for item in items if after is None or key(item) > after]
        page = rest[:size]
        return page, _token_of(key(page[-1])) if len(rest) > size else ""


def _token_of(key: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _key_of(token: str) -> str:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=str)
    except (msgspec.MsgspecError, binascii.Error, ValueError) as error:
        raise BadField(
            "page_token is not one that this list gave.",
            evidence=f"It is {token[:80]!r}.",
            fix="Begin at the first page: leave it out.",
        ) from error
