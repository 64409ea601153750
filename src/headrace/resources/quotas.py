"""Quotas: how many deployments of a size a project may have at once, counted as shares."""

from __future__ import annotations

import msgspec

DEFAULT_SHARES = 1.0
"""Four small, two medium or one large deployment (watsonx.ai, custom foundation models)."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A project's quota, where an operator changed it.

    Attributes:
        project: Whose it is.
        shares: What its deployments may take together; a large one takes 1.
    """

    project: str
    shares: float
    created_at: float
    updated_at: float
    resource_version: int = 1
