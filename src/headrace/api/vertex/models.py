"""Models and their versions: list, get, delete."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from fastapi import Request, Response

from headrace.api.requests import answer, context_of, scope_of
from headrace.contracts.vertex.listing import Facts, listing
from headrace.contracts.vertex.models import model_json, pick_version, split_version
from headrace.contracts.vertex.operations import contract_of, operation_json
from headrace.control import commands
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, ModelNotFound
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope
from headrace.store import Transaction


async def list_models(request: Request) -> Response:
    """The models of a location at their default versions, page by page."""
    scope, question = scope_of(request), listing(request.query_params, kind="model")

    def read(tx: Transaction) -> tuple[list[dict[str, Any]], str]:
        page, next_page = question.page(tx.list(Model, scope=scope), _facts)
        registry = _Registry(tx, scope, page)
        return [registry.json(model) for model in page], next_page

    page, next_page = await context_of(request).read(read)
    return answer({"models": page, "nextPageToken": next_page} if next_page else {"models": page})


async def get_model(request: Request) -> Response:
    """One model: ``id``, ``id@version`` or ``id@alias``."""
    scope = scope_of(request)
    model_id, reference = split_version(request.path_params["model"])

    def read(tx: Transaction) -> dict[str, Any]:
        model = _model(tx, scope, model_id)
        return _Registry(tx, scope, [model]).json(model, reference)

    return answer(await context_of(request).read(read))


async def list_versions(request: Request) -> Response:
    """Every version of a model, page by page."""
    scope, question = scope_of(request), listing(request.query_params, kind="model")
    model_id, _ = split_version(request.path_params["model"])

    def read(tx: Transaction) -> tuple[list[dict[str, Any]], str]:
        model = _model(tx, scope, model_id)
        registry = _Registry(tx, scope, [model])
        page, next_page = question.page(registry.versions[model.id], lambda version: _version_facts(model, version))
        return [registry.json(model, version.version) for version in page], next_page

    page, next_page = await context_of(request).read(read)
    return answer({"models": page, "nextPageToken": next_page} if next_page else {"models": page})


async def delete_model(request: Request) -> Response:
    """Delete a model with all its versions."""
    context, scope = context_of(request), scope_of(request)
    model_id, reference = split_version(request.path_params["model"])
    if reference:
        raise BadField("A model is deleted with all its versions.", fix=f"Leave out @{reference}.")
    contract = contract_of(request.path_params["version"])
    operation = await context.write(
        lambda tx: commands.delete_model(tx, scope, model_id, contract=contract, now=context.clock())
    )
    return answer(operation_json(operation))


def _model(tx: Transaction, scope: Scope, model_id: str) -> Model:
    model = tx.get(Model, scope=scope, id=model_id)
    if model is None:
        raise ModelNotFound(
            f"There is no model {scope.name('models', model_id)}.",
            evidence="Models are found by their id; several may have one name.",
            fix="`headrace models` lists them, ids first.",
        )
    return model


class _Registry:
    """Versions of some models, and where they are deployed."""

    def __init__(self, tx: Transaction, scope: Scope, models: Iterable[Model]) -> None:
        ids = tuple(model.id for model in models)
        self.versions: dict[str, list[ModelVersion]] = defaultdict(list)
        for version in tx.list(ModelVersion, scope=scope, model_id=ids):
            self.versions[version.model_id].append(version)
        pools = {one.id: (one.model_id, one.model_version) for one in tx.list(Deployment, scope=scope, model_id=ids)}
        self._bindings: dict[tuple[str, str], list[DeployedModel]] = defaultdict(list)
        for binding in tx.list(DeployedModel, scope=scope, deployment_id=tuple(pools)):
            self._bindings[pools[binding.deployment_id]].append(binding)

    def json(self, model: Model, reference: str = "") -> dict[str, Any]:
        """A model at the version meant, as the wire has it."""
        version = pick_version(model, self.versions[model.id], reference)
        return model_json(model, version, self._bindings[model.id, version.version])


def _facts(model: Model) -> Facts:
    return Facts(
        kind="model",
        id=model.id,
        display_name=model.display_name,
        labels=model.labels,
        created_at=model.created_at,
        updated_at=model.updated_at,
    )


def _version_facts(model: Model, version: ModelVersion) -> Facts:
    return Facts(
        kind="model",
        id=version.version,
        display_name=model.display_name,
        labels=model.labels,
        created_at=version.created_at,
        updated_at=version.created_at,
    )
