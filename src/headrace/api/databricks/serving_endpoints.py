"""Serving endpoints: make, list, get, give another config, delete; and what throughput a model may be sold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request, Response

from headrace.api.access import Route
from headrace.api.databricks.found import named
from headrace.api.databricks.place import workspace_of
from headrace.api.databricks.system_ai import finder, prepared
from headrace.api.description import STRING, Description, Shape, listed, record
from headrace.api.requests import answer, body_of, context_of, principal_of
from headrace.capacity.units import chunk, tokens_per_s
from headrace.contracts.databricks.bodies import ConfigBody, CreateBody, UpdatePtBody, read_body
from headrace.contracts.databricks.endpoints import endpoint_json
from headrace.contracts.databricks.optimization import not_optimizable_json, optimization_json
from headrace.contracts.databricks.paths import SERVING
from headrace.contracts.databricks.served import Config, check_tags
from headrace.control.access_lists import level_of
from headrace.control.carrying import carried_by
from headrace.control.reading import weights_of
from headrace.control.serving import (
    ServingRequest,
    create_serving_endpoint,
    delete_serving_endpoint,
    update_serving_config,
    view_of,
)
from headrace.control.system_ai import VERSION
from headrace.resources.access import Permission
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import NotOptimizable
from headrace.resources.profiles import Profile
from headrace.store import Transaction

READ, DEPLOY = Permission.READ, Permission.DEPLOY


async def create_endpoint(request: Request) -> Response:
    """Make an endpoint and deploy what it serves; wait until `state.config_update` is NOT_UPDATING.

    A throughput is bought in whole chunks (`get-model-optimization-info`) or in model units, fifty a chunk.
    """
    context, scope = context_of(request), workspace_of(request)
    body = read_body(await body_of(request), CreateBody)
    tags = tuple({"key": one.key} | ({"value": one.value} if one.value else {}) for one in body.tags or ())
    check_tags(tags)
    order = ServingRequest(
        scope=scope,
        name=body.name,
        creator=principal_of(request).name,
        config=body.read(),
        description=body.description or "",
        tags=tags,
    )

    await _prepare(request, order.config)

    def work(tx: Transaction) -> Endpoint:
        return create_serving_endpoint(tx, order, now=context.clock(), data_dir=context.layout.data_dir)

    return await _told(request, work)


async def list_endpoints(request: Request) -> Response:
    """Every endpoint of the workspace that the key may see, whoever's client made it."""
    scope, principal = workspace_of(request), principal_of(request)

    def read(tx: Transaction) -> list[dict[str, Any]]:
        found = ((one, level_of(one, principal)) for one in tx.list(Endpoint, scope=scope, deleting=False))
        return [endpoint_json(view_of(tx, one), permission=level, detailed=False) for one, level in found if level]

    return answer({"endpoints": await context_of(request).read(read)})


async def get_endpoint(request: Request) -> Response:
    """One endpoint: what it serves, how far that is, and what it is on its way to (`pending_config`)."""

    def read(tx: Transaction) -> dict[str, Any]:
        return _shown(tx, request, named(tx, request, "CAN_VIEW"))

    return answer(await context_of(request).read(read))


async def update_config(request: Request) -> Response:
    """Serve another config, without a request that is turned away: the old one serves until all of the new answers."""
    return await _update(request, read_body(await body_of(request), ConfigBody).read())


async def update_pt_config(request: Request) -> Response:
    """The same of an endpoint that was bought in model units; the config is wrapped."""
    return await _update(request, read_body(await body_of(request), UpdatePtBody).config.read())


async def delete_endpoint(request: Request) -> Response:
    """Delete an endpoint with all that it serves; requests under way may finish."""
    context, scope, name = context_of(request), workspace_of(request), request.path_params["name"]

    def work(tx: Transaction) -> None:
        named(tx, request, "CAN_MANAGE")
        delete_serving_endpoint(tx, scope, name, now=context.clock())

    await context.write(work)
    return answer({})


async def optimization_info(request: Request) -> Response:
    """What throughput a model may be sold here, in chunks of how many tokens a second; or why none."""
    context, scope = context_of(request), workspace_of(request)
    find = await finder(context, scope, request.path_params["name"], request.path_params["version"])

    def read(tx: Transaction) -> dict[str, Any]:
        version, data_dir = find(tx), context.layout.data_dir
        carried = carried_by(tx, version, data_dir=data_dir)
        return optimization_json(
            carried,
            model_type=weights_of(version, data_dir).folder.config.model_type or "",
            chunk=chunk(carried),
            tokens_per_s=tokens_per_s(carried),
            profile=tx.get(Profile, scope=scope, id=carried.profile_id) if carried.profile_id else None,
        )

    try:
        return answer(await context.read(read))
    except NotOptimizable as error:
        return answer(not_optimizable_json(error))


async def _update(request: Request, config: Config) -> Response:
    context, scope, name = context_of(request), workspace_of(request), request.path_params["name"]
    await _prepare(request, config)

    def work(tx: Transaction) -> Endpoint:
        named(tx, request, "CAN_MANAGE")
        return update_serving_config(tx, scope, name, config, now=context.clock(), data_dir=context.layout.data_dir)

    return await _told(request, work)


async def _prepare(request: Request, config: Config) -> None:
    """Have what is served of ``system.ai`` in the project's registry, where other entities are already."""
    for entity in config.entities:
        await prepared(context_of(request), workspace_of(request), entity.entity_name, entity.entity_version or VERSION)


async def _told(request: Request, work: Callable[[Transaction], Endpoint]) -> Response:
    """The endpoint as it is once that is done."""
    return answer(await context_of(request).write(lambda tx: _shown(tx, request, work(tx))))


def _shown(tx: Transaction, request: Request, endpoint: Endpoint) -> dict[str, Any]:
    """It, with what whoever asks may do there."""
    return endpoint_json(view_of(tx, endpoint), permission=level_of(endpoint, principal_of(request)) or "")


NAMED = f"{SERVING}/{{name}}"
PT = f"{SERVING}/pt"
OPTIMIZATION = f"{SERVING}/get-model-optimization-info/{{name}}/{{version}}"

ROUTES: tuple[Route, ...] = (
    *(Route("POST", path, DEPLOY, create_endpoint) for path in (SERVING, f"{SERVING}/", PT)),
    *(Route("GET", path, READ, list_endpoints) for path in (SERVING, f"{SERVING}/")),
    Route("GET", OPTIMIZATION, READ, optimization_info),
    Route("PUT", f"{PT}/{{name}}/config", DEPLOY, update_pt_config),
    Route("GET", NAMED, READ, get_endpoint),
    Route("PUT", f"{NAMED}/config", DEPLOY, update_config),
    Route("DELETE", NAMED, DEPLOY, delete_endpoint),
)
"""MLflow's client asks with a slash at the end of the collection, and follows no redirect with its body."""

_ENDPOINT: Shape = {
    "title": "ServingEndpoint",
    **record(
        name=STRING,
        id=STRING,
        creation_timestamp={"type": "integer"},
        last_updated_timestamp={"type": "integer"},
        config={"type": "object"},
        state=record(ready=STRING, config_update=STRING),
    ),
}
_OPTIMIZATION: Shape = {
    "type": "object",
    "properties": {
        "optimizable": {"type": "boolean"},
        "model_type": STRING,
        "throughput_chunk_size": {"type": "integer", "description": "Tokens a second."},
        "headrace": {"type": "object"},
    },
    "required": ["optimizable"],
}


def _described(answer: Shape, body: Shape | None = None) -> Description:
    return Description(answer=answer, body=body, errors="databricks")


DESCRIPTIONS: Mapping[str, Description] = {
    **{f"POST {path}": _described(_ENDPOINT, CreateBody) for path in (SERVING, f"{SERVING}/", PT)},
    **{f"GET {path}": _described(listed("endpoints", _ENDPOINT)) for path in (SERVING, f"{SERVING}/")},
    f"GET {OPTIMIZATION}": _described(_OPTIMIZATION),
    f"PUT {PT}/{{name}}/config": _described(_ENDPOINT, UpdatePtBody),
    f"GET {NAMED}": _described(_ENDPOINT),
    f"PUT {NAMED}/config": _described(_ENDPOINT, ConfigBody),
    f"DELETE {NAMED}": _described({"type": "object", "maxProperties": 0}),
}
"""By ``"METHOD /path"``."""
