"""Logs of what a serving endpoint serves: of its engines, and of how it came about."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import Request, Response

from headrace.api.access import Route
from headrace.api.databricks.found import named, served_name
from headrace.api.description import STRING, Description, record
from headrace.api.log_tail import engine_log, tail
from headrace.api.requests import answer, context_of
from headrace.contracts.databricks.logs import build_logs_json, logs_json
from headrace.contracts.databricks.paths import SERVING
from headrace.resources.access import Permission
from headrace.resources.deployments import Replica, Transition
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import ModelNotFound
from headrace.store import Transaction

LINES = 1000
"""Of each replica."""

_SERVED = f"{SERVING}/{{name}}/served-models/{{served}}"


async def get_logs(request: Request) -> Response:
    """The last lines that the engines of a served entity wrote, replica by replica."""
    context = context_of(request)

    def read(tx: Transaction) -> list[Replica]:
        served = _served(tx, request, named(tx, request, "CAN_MANAGE"))
        replicas = tx.list(Replica, scope=served.scope, deployment_id=served.deployment_id)
        return [replica for replica in replicas if replica.node_id]  # an external server keeps its own log

    tails = []
    for replica in await context.read(read):
        lines = await asyncio.to_thread(tail, engine_log(context.layout, replica.id), LINES)
        tails.append((replica.id, replica.log_tail if lines is None else lines))
    return answer(logs_json(tails))


async def get_build_logs(request: Request) -> Response:
    """How a served entity came about: a line for each step of its deployment, with what was found or went wrong."""

    def read(tx: Transaction) -> list[Transition]:
        served = _served(tx, request, named(tx, request, "CAN_VIEW"))
        return tx.timelines.shown("deployment", served.deployment_id)

    return answer(build_logs_json(await context_of(request).read(read)))


def _served(tx: Transaction, request: Request, endpoint: Endpoint) -> DeployedModel:
    wanted = request.path_params["served"]
    there = tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id)
    for one in there:
        if wanted in (served_name(endpoint, one), one.display_name, one.id):
            return one
    raise ModelNotFound(
        f"Endpoint {request.path_params['name'][:80]!r} has no served entity {wanted[:80]!r}.",
        evidence=f"It has {len(there)}." if there else "It has none.",
        fix="GET /api/2.0/serving-endpoints/NAME lists them, in config.served_entities.",
    )


ROUTES = (
    Route("GET", f"{_SERVED}/logs", Permission.ADMINISTER, get_logs),
    Route("GET", f"{_SERVED}/build-logs", Permission.READ, get_build_logs),
)
_LOGS = Description(answer=record(logs=STRING), errors="databricks")
DESCRIPTIONS: Mapping[str, Description] = {f"GET {_SERVED}/logs": _LOGS, f"GET {_SERVED}/build-logs": _LOGS}
