"""Models and their versions: register, list, get, change, delete."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import Request, Response

from headrace.api.requests import answer, body_of, context_of, mask_of, scope_of
from headrace.api.vertex.paging import page_of
from headrace.api.viewing import hidden_among
from headrace.contracts.vertex.listing import Facts, listing
from headrace.contracts.vertex.model_bodies import ModelBody, UploadWish, read_merge, read_upload
from headrace.contracts.vertex.model_update import ModelUpdate, read_update
from headrace.contracts.vertex.models import labels_of, model_json, pick_version, require_etag, split_version
from headrace.contracts.vertex.operations import contract_of, operation_json
from headrace.contracts.vertex.read_masks import ReadMask
from headrace.control import commands
from headrace.resources.aliases import DEFAULT_ALIAS
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, ModelNotFound
from headrace.resources.models import Model, ModelVersion, ServingSpec
from headrace.resources.names import Scope
from headrace.runtimes.images import stand_in, with_wishes
from headrace.store import Condition, Order, Transaction


async def upload_model(request: Request) -> Response:
    """Register a model, or another version of one."""
    context, scope = context_of(request), scope_of(request)
    order = _order(read_upload(await body_of(request), scope), scope, contract_of(request.path_params["version"]))
    operation = await context.write(lambda tx: commands.upload(tx, order, now=context.clock()))
    return answer(operation_json(operation))


def _order(wish: UploadWish, scope: Scope, contract: str) -> commands.UploadRequest:
    return commands.UploadRequest(
        scope=scope,
        contract=contract,
        artifact_uri=wish.artifact_uri or (stand_in(wish.container).model if wish.container else ""),
        model_id=wish.model_id,
        new_version=wish.new_version,
        display_name=wish.display_name,
        description=wish.description,
        version_description=wish.version_description,
        # Of a new version they are its own: those of the model are changed by an update alone.
        labels={} if wish.new_version else wish.labels,
        version_labels=wish.labels if wish.new_version else {},
        aliases=wish.aliases,
        spec=with_wishes(ServingSpec(container=wish.container)),
        kept=wish.kept,
    )


async def list_models(request: Request) -> Response:
    """The models of a location at their default versions, page by page."""
    scope, question = scope_of(request), listing(request.query_params, kind="model")
    mask = ReadMask(mask_of(request), ModelBody)

    def read(tx: Transaction) -> tuple[list[dict[str, Any]], str]:
        page, next_page = page_of(tx, Model, question, scope=scope)
        registry = _Registry(tx, request, scope, page, versions=_default_versions(tx, scope, page))
        # One that Unity Catalog's clients registered has no version before its first upload: Vertex AI knows none such.
        return [mask.of(registry.json(model)) for model in page if registry.versions[model.id]], next_page

    page, next_page = await context_of(request).read(read)
    return answer({"models": page, "nextPageToken": next_page} if next_page else {"models": page})


async def get_model(request: Request) -> Response:
    """One model: ``id``, ``id@version`` or ``id@alias``."""
    scope = scope_of(request)
    model_id, reference = split_version(request.path_params["model"])
    return answer(await context_of(request).read(lambda tx: _json(tx, request, scope, model_id, reference)))


async def list_versions(request: Request) -> Response:
    """Every version of a model, page by page; their names have the number behind an ``@``, as the vendor's."""
    scope, question = scope_of(request), listing(request.query_params, kind="model")
    mask = ReadMask(mask_of(request), ModelBody)
    model_id, _ = split_version(request.path_params["model"])

    def read(tx: Transaction) -> tuple[list[dict[str, Any]], str]:
        model = _model(tx, scope, model_id)
        registry = _Registry(tx, request, scope, [model])
        page, next_page = question.page(registry.versions[model.id], lambda version: _version_facts(model, version))
        named = [(f"{model.name}@{version.version}", registry.json(model, version.version)) for version in page]
        return [mask.of({**wire, "name": name}) for name, wire in named], next_page

    page, next_page = await context_of(request).read(read)
    return answer({"models": page, "nextPageToken": next_page} if next_page else {"models": page})


async def update_model(request: Request) -> Response:
    """Change the name, the description or the labels of a model, or of one of its versions."""
    context, scope, query = context_of(request), scope_of(request), request.query_params
    model_id, reference = split_version(request.path_params["model"])
    update = read_update(
        await body_of(request),
        query.get("updateMask", query.get("update_mask", "")),
        model=scope.name("models", model_id),
        reference=reference,
    )

    def change(tx: Transaction) -> dict[str, Any]:
        _change(tx, _model(tx, scope, model_id), update)
        return _json(tx, request, scope, model_id, update.version)

    return answer(await context.write(change))


def _change(tx: Transaction, model: Model, update: ModelUpdate) -> None:
    version = _version(tx, model, update.version)
    require_etag(update.etag, model, version, of_version=bool(update.version))
    if update.version:
        commands.change_version(tx, version, description=update.description, labels=update.labels)
        return
    commands.change_model(
        tx, model, display_name=update.display_name, description=update.description, labels=update.labels
    )


async def merge_version_aliases(request: Request) -> Response:
    """Give a version aliases, or take some off it; the answer is the version."""
    context, scope = context_of(request), scope_of(request)
    model_id, reference = split_version(request.path_params["model"])
    change = read_merge(await body_of(request))
    if not reference:
        raise _no_version("mergeVersionAliases")

    def merge(tx: Transaction) -> dict[str, Any]:
        model = _model(tx, scope, model_id)
        version = _version(tx, model, reference)
        commands.merge_aliases(tx, model, version, change)
        return _json(tx, request, scope, model_id, version.version)

    return answer(await context.write(merge))


async def delete_version(request: Request) -> Response:
    """Delete one of several versions of a model."""
    context, scope = context_of(request), scope_of(request)
    model_id, reference = split_version(request.path_params["model"])
    contract = contract_of(request.path_params["version"])
    if not reference:
        raise _no_version("deleteVersion")

    def work(tx: Transaction) -> dict[str, Any]:
        model = _model(tx, scope, model_id)
        version = _version(tx, model, reference)
        return operation_json(commands.delete_version(tx, model, version, contract=contract, now=context.clock()))

    return answer(await context.write(work))


async def delete_model(request: Request) -> Response:
    """Delete a model with all its versions."""
    context, scope = context_of(request), scope_of(request)
    model_id, reference = split_version(request.path_params["model"])
    if reference:
        raise BadField(
            "A model is deleted with all its versions.",
            fix=f"Leave out @{reference}, or delete the one version with :deleteVersion.",
        )
    contract = contract_of(request.path_params["version"])
    operation = await context.write(
        lambda tx: commands.delete_model(tx, scope, model_id, contract=contract, now=context.clock())
    )
    return answer(operation_json(operation))


def _no_version(method: str) -> BadField:
    return BadField(
        f"{method} is about one version, and the path names none.", fix=f"Write models/MODEL@VERSION:{method}."
    )


def _model(tx: Transaction, scope: Scope, model_id: str) -> Model:
    model = tx.get(Model, scope=scope, id=model_id)
    if model is None:
        raise ModelNotFound(
            f"There is no model {scope.name('models', model_id)}.",
            evidence="Models are found by their id; several may have one name.",
            fix="`headrace models` lists them, ids first.",
        )
    return model


def _version(tx: Transaction, model: Model, reference: str) -> ModelVersion:
    return pick_version(model, tx.list(ModelVersion, scope=model.scope, model_id=model.id), reference)


def _json(tx: Transaction, request: Request, scope: Scope, model_id: str, reference: str) -> dict[str, Any]:
    model = _model(tx, scope, model_id)
    return _Registry(tx, request, scope, [model]).json(model, reference)


def _default_versions(tx: Transaction, scope: Scope, models: Sequence[Model]) -> list[ModelVersion]:
    """The versions that a list shows its models at: a model may have thousands of others."""
    ids = tuple(model.id for model in models)
    default = Condition("aliases", "lists", DEFAULT_ALIAS)
    found = tx.page(
        ModelVersion, limit=len(ids), orders=[Order("model_id")], conditions=[default], scope=scope, model_id=ids
    )
    without = tuple(set(ids) - {version.model_id for version in found})
    return found + tx.list(ModelVersion, scope=scope, model_id=without) if without else found


class _Registry:
    """Versions of some models, and where they are deployed.

    Args:
        tx: An open transaction.
        request: Who asks: what is deployed on an endpoint that is not for them is not told.
        scope: Where the models are.
        models: The models.
        versions: Of them those that matter; None: all.
    """

    def __init__(
        self,
        tx: Transaction,
        request: Request,
        scope: Scope,
        models: Iterable[Model],
        *,
        versions: Iterable[ModelVersion] | None = None,
    ) -> None:
        ids = tuple(model.id for model in models)
        self.versions: dict[str, list[ModelVersion]] = defaultdict(list)
        for version in tx.list(ModelVersion, scope=scope, model_id=ids) if versions is None else versions:
            self.versions[version.model_id].append(version)
        found = tx.columns(Deployment, ("id", "model_id", "model_version"), scope=scope, model_id=ids)
        pools = {deployment_id: (model_id, version) for deployment_id, model_id, version in found}
        self._bindings: dict[tuple[str, str], list[DeployedModel]] = defaultdict(list)
        bindings = tx.list(DeployedModel, scope=scope, deployment_id=tuple(pools)) if pools else []
        hidden = hidden_among(tx, request, (one.endpoint_id for one in bindings), scope=scope)
        for binding in bindings:
            if (scope, binding.endpoint_id) not in hidden:
                self._bindings[pools[binding.deployment_id]].append(binding)

    def json(self, model: Model, reference: str = "") -> dict[str, Any]:
        """A model at the version meant, as the wire has it."""
        version = pick_version(model, self.versions[model.id], reference)
        return model_json(model, version, self._bindings[model.id, version.version])


def _version_facts(model: Model, version: ModelVersion) -> Facts:
    return Facts(
        kind="model",
        id=version.version,
        display_name=model.display_name,
        labels=labels_of(model, version),
        created_at=version.created_at,
        updated_at=max(version.created_at, version.updated_at),
    )
