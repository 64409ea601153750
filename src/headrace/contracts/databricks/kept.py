"""What Databricks' API says of an endpoint that no other API has: kept with it, below one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEPT = "databricks"
"""In `Endpoint.kept`."""


def kept_of(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of it; empty where nothing is.

    Args:
        kept: `Endpoint.kept`.
    """
    found = kept.get(KEPT)
    return dict(found) if isinstance(found, dict) else {}


def with_kept(kept: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """All that is to be kept, with these changes to it.

    Args:
        kept: `Endpoint.kept` as it is.
        changes: By name; None: it is kept no longer.
    """
    ours = {**kept_of(kept), **changes}
    return {**kept, KEPT: {name: value for name, value in ours.items() if value is not None}}
