"""Paths of the API. Whatever a person gives as an id stays one segment of its path."""

from __future__ import annotations

from urllib.parse import quote


def segment(identifier: str) -> str:
    """An id as a segment of a path; it cannot lead to another path.

    >>> segment("../endpoints/x"), segment(".."), segment("9@2")
    ('..%2Fendpoints%2Fx', '%2E%2E', '9@2')
    """
    quoted = quote(identifier, safe="@")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted
