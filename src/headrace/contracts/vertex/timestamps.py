"""Times and versions of resources as the vendor's JSON writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(at: float) -> str:
    """Unix seconds as the JSON mapping of ``google.protobuf.Timestamp``: UTC, microseconds, ``Z``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def etag(resource_version: int) -> str:
    """The opaque tag of a row's version, for compare-and-set."""
    return f"v{resource_version}"
