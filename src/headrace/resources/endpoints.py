"""Endpoints (stable addresses) and deployed models (what stands behind them)."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.resources.names import Scope
from headrace.resources.profiles import Provision
from headrace.resources.request_log import RequestLog


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A stable address for requests.

    Attributes:
        description: What people wrote about it.
        dedicated: Whether it is reported as a dedicated endpoint (Vertex AI's SDK then sends requests straight to it).
        inference_timeout_s: The longest that an answer may take to begin, where that is less than the gateway's own
            limits; 0: those alone.
        deleting: A delete was asked for; it is gone once its deployed models are.
        request_log: What of its requests is written down; None: nothing.
        kept: A vendor's own fields of it, kept whole for those who read them back.
    """

    scope: Scope
    id: str
    display_name: str
    description: str = ""
    labels: dict[str, str] = {}
    dedicated: bool = True
    inference_timeout_s: float = 0.0
    deleting: bool = False
    request_log: RequestLog | None = None
    kept: dict[str, Any] = {}
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
        settings: A vendor's own settings of it, kept whole for those who read it back.
        provision: The throughput that it was sold; None: none, it is served as there is room.
    """

    scope: Scope
    id: str
    endpoint_id: str
    deployment_id: str
    display_name: str = ""
    traffic: int = 100
    settings: dict[str, Any] = {}
    provision: Provision | None = None
    created_at: float
    resource_version: int = 1
