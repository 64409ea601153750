"""Databricks' control plane: each module has its ``ROUTES``, and in ``DESCRIPTIONS`` what they take and answer."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.access import Route
from headrace.api.databricks import (
    ai_gateway,
    logs,
    metrics,
    permissions,
    rate_limits,
    registry_routes,
    serving_endpoints,
    tags,
)
from headrace.api.description import Description

_MODULES = (
    serving_endpoints,  # one line for each
    registry_routes,
    tags,
    rate_limits,
    ai_gateway,
    permissions,
    logs,
    metrics,
)
ROUTES: tuple[Route, ...] = tuple(route for module in _MODULES for route in module.ROUTES)
"""Every route, with the permission that it demands, in the order in which they are tried."""

DESCRIPTIONS: Mapping[str, Description] = {
    what: one for module in _MODULES for what, one in module.DESCRIPTIONS.items()
}
"""What each takes and answers, by ``"METHOD /path"``."""
