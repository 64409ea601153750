"""Endpoints (stable addresses) and deployed models (what stands behind them)."""

from __future__ import annotations

import msgspec

from headrace.resources.names import Scope
from headrace.resources.request_log import RequestLog


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A stable address for requests.

    Attributes:
        dedicated: Whether it is reported as a dedicated endpoint (Vertex AI's SDK then sends requests straight to it).
        deleting: A delete was asked for; it is gone once its deployed models are.
        request_log: What of its requests is written down; None: nothing.
    """

    scope: Scope
    id: str
    display_name: str
    labels: dict[str, str] = {}
    dedicated: bool = True
    deleting: bool = False
    request_log: RequestLog | None = None
    created_at: float
    updated_at: float
    resource_version: int = 1

    @property
    def name(self) -> str:
        """Full resource name."""
        return self.scope.name("endpoints", self.id)


class DeployedModel(msgspec.Struct, frozen=True, kw_only=True):
    """Binds an endpoint to a deployment with a share of the endpoint's traffic.

    Attributes:
        traffic: Percent of the endpoint's requests, 0 to 100; an endpoint's add up to 100, or to 0 when it has none.
    """

    scope: Scope
    id: str
    endpoint_id: str
    deployment_id: str
    display_name: str = ""
    traffic: int = 100
    created_at: float
    resource_version: int = 1
