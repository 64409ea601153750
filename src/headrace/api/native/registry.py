"""Models and endpoints of every project and location that the key reaches, and what may be changed of endpoints."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
from fastapi import Request, Response

from headrace.api.managing import require_manager
from headrace.api.native.bodies import read_body
from headrace.api.native.nouns import noun_json, reach
from headrace.api.requests import answer, context_of
from headrace.api.viewing import may_view
from headrace.control import commands
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import BadField, DeploymentNotFound, EndpointNotFound
from headrace.resources.models import Model, ModelVersion
from headrace.resources.throughput import read_throughput
from headrace.store import Transaction

CONTRACT = "native/v1"


class RequestLogBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different about an endpoint's request log, as `RequestLog` has it: what is left out stays."""

    sampling_rate: float | msgspec.UnsetType = msgspec.UNSET
    redact_fields: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    redact_patterns: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class ChangeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different about an endpoint; what is left out stays.

    Attributes:
        traffic: How its requests are shared out: whole percents by deployed model, 100 in all; those not named get
            none.
        request_log: What of its requests is written down; null: nothing.
        throughput: What deployed models that were sold one are sold from now on, by their ids; as in `DeployBody`.
    """

    traffic: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    request_log: RequestLogBody | msgspec.UnsetType | None = msgspec.UNSET
    throughput: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


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
            if may_view(request, endpoint)
        ]

    return answer({"endpoints": await context_of(request).read(read)})


async def change_endpoint(request: Request) -> Response:
    """Share an endpoint's requests out anew, log them, or sell another throughput of its deployed models.

    The answer is the endpoint with its deployed models, and the operations of the throughputs that were changed.
    """
    body, wanted, conditions = await read_body(request, ChangeBody), request.path_params["endpoint"], reach(request)
    context = context_of(request)
    now = context.clock()
    if body == ChangeBody():
        raise BadField("The body changes nothing.", fix="Give traffic, request_log or throughput.")

    def change(tx: Transaction) -> dict[str, Any]:
        found = tx.list(Endpoint, id=wanted, **conditions)
        if not found:
            raise EndpointNotFound(f"There is no endpoint {wanted!r}.", fix="`headrace endpoints` lists them.")
        if len(found) > 1:
            projects = ", ".join(str(one.scope) for one in found)
            raise BadField(f"{len(found)} endpoints have this id.", evidence=projects, fix="Add ?project=…&location=….")
        (endpoint,) = found
        require_manager(tx, request, endpoint.scope, endpoint.id)
        if not isinstance(body.traffic, msgspec.UnsetType):
            commands.split_traffic(tx, endpoint.scope, endpoint.id, body.traffic)
        if not isinstance(body.request_log, msgspec.UnsetType):
            endpoint = commands.change_request_log(tx, endpoint.scope, endpoint.id, _given(body.request_log), now=now)
        wishes = {} if isinstance(body.throughput, msgspec.UnsetType) else body.throughput
        operations = [
            commands.set_provision(
                tx,
                _deployed(tx, endpoint, name),
                read_throughput(text),
                contract=CONTRACT,
                now=now,
                data_dir=context.layout.data_dir,
            )
            for name, text in wishes.items()
        ]
        bound = tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id)
        return {
            **noun_json(endpoint),
            "deployed_models": [noun_json(one) for one in bound],
            "operations": [noun_json(one) for one in operations],
        }

    return answer(await context_of(request).write(change))


def _deployed(tx: Transaction, endpoint: Endpoint, name: str) -> DeployedModel:
    """The endpoint's deployed model with this id."""
    found = tx.get(DeployedModel, scope=endpoint.scope, id=name)
    if found is None or found.endpoint_id != endpoint.id:
        raise DeploymentNotFound(f"Endpoint {endpoint.id!r} has no deployed model {name[:60]!r}.")
    return found


def _given(log: RequestLogBody | None) -> dict[str, Any] | None:
    """The fields that the body has."""
    if log is None:
        return None
    return {name: value for name, value in msgspec.structs.asdict(log).items() if value is not msgspec.UNSET}
