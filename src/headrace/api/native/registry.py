"""Models and endpoints of every project and location that the key reaches."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import Request, Response

from headrace.api.native.nouns import noun_json, reach
from headrace.api.requests import answer, context_of
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.models import Model, ModelVersion
from headrace.store import Transaction


async def models(request: Request) -> Response:
    """Models with their versions."""
    conditions = reach(request)

    def read(tx: Transaction) -> list[dict[str, Any]]:
        versions: dict[tuple[Any, str], list[dict[str, Any]]] = defaultdict(list)
        for one in tx.list(ModelVersion, **conditions):
            versions[one.scope, one.model_id].append(noun_json(one))
        return [
            {**noun_json(model), "versions": versions[model.scope, model.id]} for model in tx.list(Model, **conditions)
        ]

    return answer({"models": await context_of(request).read(read)})


async def endpoints(request: Request) -> Response:
    """Endpoints with what is bound to them."""
    conditions = reach(request)

    def read(tx: Transaction) -> list[dict[str, Any]]:
        bindings: dict[tuple[Any, str], list[dict[str, Any]]] = defaultdict(list)
        for one in tx.list(DeployedModel, **conditions):
            bindings[one.scope, one.endpoint_id].append(noun_json(one))
        return [
            {**noun_json(endpoint), "deployed_models": bindings[endpoint.scope, endpoint.id]}
            for endpoint in tx.list(Endpoint, **conditions)
        ]

    return answer({"endpoints": await context_of(request).read(read)})
