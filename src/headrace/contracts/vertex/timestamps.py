"""Times and versions of resources as the vendor's JSON writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(4096)  # a page of a list tells some hundred, many of them each time it is asked for
def rfc3339(at: float) -> str:
    """Unix seconds as the JSON mapping of ``google.protobuf.Timestamp``: UTC, microseconds, ``Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def etag(resource_version: int) -> str:
    """The opaque tag of a row's version, for compare-and-set."""
    return f"v{resource_version}"


def version_of(tag: str) -> int:
    """The version that a tag of `etag` stands for; 0, which no row has, for another text."""
    number = tag.removeprefix("v")
    return int(number) if tag.startswith("v") and number.isascii() and number.isdecimal() and len(number) < 19 else 0
