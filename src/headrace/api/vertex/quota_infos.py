"""What gcloud asks of other services of the cloud before it deploys a model of Model Garden."""

from __future__ import annotations

from fastapi import Request, Response

from headrace.api.requests import answer, scope_of
from headrace.contracts.vertex.quota_infos import quota_info_json, time_series_json
from headrace.resources.names import DEFAULT_LOCATION, Scope


async def get_quota_info(request: Request) -> Response:
    """How many accelerators of a kind the project may have."""
    return answer(quota_info_json(scope_of(request).project, request.path_params["quota"]))


async def list_time_series(request: Request) -> Response:
    """How many it has, as Cloud Monitoring would tell."""
    Scope(request.path_params["project"], DEFAULT_LOCATION)  # a name that none can have is told so
    return answer(time_series_json())
