"""``/api/2.0/mlflow/unity-catalog``: the registry as MLflow's client for ``databricks-uc`` asks."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from headrace.api.databricks.registry import Registry, listed_models, sorting_key, versions_by_model
from headrace.api.requests import answer, body_of, principal_of
from headrace.contracts.databricks import mlflow as contract
from headrace.contracts.databricks.registry_bodies import PageQuery, read_object, read_query
from headrace.contracts.databricks.unity_catalog import renamed, storage_of
from headrace.control import commands as general
from headrace.control.commands import unity_catalog as commands
from headrace.control.garden import HUB
from headrace.control.system_ai import find_published, name_of, require_version
from headrace.resources.access import Permission
from headrace.resources.errors import ModelNotFound, NotSupported
from headrace.resources.models import Model, ModelVersion
from headrace.resources.unity_catalog import FullName, read_full_name
from headrace.store import Transaction

DEPLOY = Permission.DEPLOY


async def uploads_by_files(_request: Request) -> Response:
    """That models are uploaded by the files API, with no cloud's credentials."""
    return answer({"is_databricks_sdk_models_artifact_repository_enabled": True})


async def create_model(request: Request) -> Response:
    """Register a name."""
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.CreateModel)
    now, name, tags = registry.context.clock(), read_full_name(body.name), contract.tags_of(body.tags)
    model = await registry.context.write(
        lambda tx: commands.create_registered(tx, registry.scope, name, comment=body.description, tags=tags, now=now)
    )
    return answer({"registered_model": contract.model_json(model)})


async def get_model(request: Request) -> Response:
    """One registered model."""
    registry, name = Registry(request), read_full_name(read_query(request.query_params, contract.Named).name)
    if name.of_system:
        entry = find_published(name)
        return answer({"registered_model": contract.published_json(name_of(entry), entry.display_name)})
    return answer(await registry.context.read(lambda tx: _model(tx, registry, name)))


async def search_models(request: Request) -> Response:
    """Registered models by name, page by page; those of the Model Garden are in system.ai."""
    registry, query = Registry(request), read_query(request.query_params, PageQuery)

    def read(tx: Transaction) -> dict[str, Any]:
        page, token = query.page(listed_models(tx, registry.scope), lambda each: str(each.name))
        shown = [
            contract.model_json(each.row)
            if each.row
            else contract.published_json(each.name, each.entry.display_name if each.entry else "")
            for each in page
        ]
        return {"registered_models": shown, "next_page_token": token}

    return answer(await registry.context.read(read))


async def update_model(request: Request) -> Response:
    """Change the description or the name of a registered model."""
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.UpdateModel)
    name = read_full_name(body.name)
    new_name = renamed(name, body.new_name) if body.new_name else name

    def update(tx: Transaction) -> dict[str, Any]:
        model = general.change_model(tx, registry.model(tx, name), description=body.description)
        commands.rename_registered(tx, model, new_name)
        return _model(tx, registry, new_name)

    return answer(await registry.context.write(update))


async def delete_model(request: Request) -> Response:
    """Delete a registered model with all its versions, and what was uploaded of them."""
    registry = Registry(request, DEPLOY)
    await registry.delete_model(read_full_name(read_object(await body_of(request), contract.Named).name))
    return answer({})


async def create_version(request: Request) -> Response:
    """Give a version its number; it is PENDING_REGISTRATION until its files are here and finalize is called."""
    registry, key_id = Registry(request, DEPLOY), principal_of(request).key_id
    body = read_object(await body_of(request), contract.CreateVersion)
    now, name, tags = registry.context.clock(), read_full_name(body.name), contract.tags_of(body.tags)

    def create(tx: Transaction) -> ModelVersion:
        return commands.create_pending_version(
            tx,
            registry.model(tx, name),
            source=body.source,
            run_id=body.run_id or "",
            description=body.description,
            tags=tags,
            key_id=key_id,
            now=now,
        )

    return answer({"model_version": contract.version_json(name, await registry.context.write(create))})


async def finalize_version(request: Request) -> Response:
    """End an upload: the version is READY, or FAILED_REGISTRATION with the reason in its status message."""
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.Versioned)
    name = read_full_name(body.name)
    return answer({"model_version": contract.version_json(name, await registry.conclude(name, body.version))})


async def get_version(request: Request) -> Response:
    """One version."""
    registry, query = Registry(request), read_query(request.query_params, contract.Versioned)
    name = read_full_name(query.name)
    if name.of_system:
        return answer({"model_version": _published(name, query.version)})
    version = await registry.context.read(lambda tx: registry.version(tx, name, query.version))
    if version.version != query.version:
        raise ModelNotFound(f"Registered model '{name}' has no version {query.version[:80]!r}.")
    return answer({"model_version": contract.version_json(name, version)})


async def search_versions(request: Request) -> Response:
    """Versions of a name, of a run, or all, page by page."""
    registry, query = Registry(request), read_query(request.query_params, contract.SearchVersions)
    field, value = query.wanted

    def read(tx: Transaction) -> dict[str, Any]:
        models = {model.id: model for model in _searched(tx, registry, value if field == "name" else "")}
        found = [
            each for versions in versions_by_model(tx, registry.scope, models.values()).values() for each in versions
        ]
        if field == "run_id":
            found = [each for each in found if each.registration and each.registration.run_id == value]
        page, token = query.page(sorted(found, key=sorting_key), sorting_key)
        shown = [contract.version_json(read_full_name(models[each.model_id].display_name), each) for each in page]
        return {"model_versions": shown, "next_page_token": token}

    return answer(await registry.context.read(read))


def _searched(tx: Transaction, registry: Registry, name: str) -> list[Model]:
    wanted = str(read_full_name(name)) if name else ""
    return [model for model in commands.registered_models(tx, registry.scope) if wanted in ("", model.display_name)]


async def update_version(request: Request) -> Response:
    """Change the description of a version."""
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.UpdateVersion)
    name = read_full_name(body.name)
    version = await registry.context.write(
        lambda tx: general.change_version(tx, registry.version(tx, name, body.version), description=body.description)
    )
    return answer({"model_version": contract.version_json(name, version)})


async def delete_version(request: Request) -> Response:
    """Delete a version with what was uploaded of it."""
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.Versioned)
    await registry.delete_version(read_full_name(body.name), body.version)
    return answer({})


async def download_uri(request: Request) -> Response:
    """Where a version's files are: a folder of the files API, or the address that it was registered by."""
    registry, query = Registry(request), read_query(request.query_params, contract.Versioned)
    name = read_full_name(query.name)
    if name.of_system:
        return answer({"artifact_uri": _published(name, query.version)["source"]})
    version = await registry.context.read(lambda tx: registry.version(tx, name, query.version))
    return answer({"artifact_uri": storage_of(name, version)})


async def temporary_credentials(request: Request) -> Response:
    """Always refused: files come and go by the files API, and there is no bucket that credentials could open.

    Raises:
        NotSupported: Always.
    """
    Registry(request)
    raise NotSupported(
        "There are no temporary credentials: models are uploaded and downloaded by the files API.",
        evidence="No version's files are in a cloud's bucket.",
        fix="Use an MLflow that asks registered-models:is-databricks-sdk-models-artifact-repository-enabled, and have "
        "databricks-sdk installed beside it.",
    )


async def set_alias(request: Request) -> Response:
    """Give an alias to a version; it leaves the one that had it."""
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.SetAlias)
    name = read_full_name(body.name)
    await registry.context.write(
        lambda tx: commands.set_registered_alias(tx, registry.model(tx, name), body.alias, body.version)
    )
    return answer({})


async def delete_alias(request: Request) -> Response:
    """Take an alias off whichever version has it."""
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.Aliased)
    name = read_full_name(body.name)
    await registry.context.write(lambda tx: commands.delete_registered_alias(tx, registry.model(tx, name), body.alias))
    return answer({})


async def get_version_by_alias(request: Request) -> Response:
    """One version, by an alias."""
    registry, query = Registry(request), read_query(request.query_params, contract.Aliased)
    name = read_full_name(query.name)
    if name.of_system:
        return answer({"model_version": _published(name, query.alias)})
    version = await registry.context.read(lambda tx: registry.version(tx, name, query.alias))
    if query.alias not in version.aliases:
        raise ModelNotFound(f"Registered model '{name}' has no alias {query.alias[:80]!r}.")
    return answer({"model_version": contract.version_json(name, version)})


async def set_model_tag(request: Request) -> Response:
    """Give a registered model a tag."""
    return await _tag_model(request, removes=False)


async def delete_model_tag(request: Request) -> Response:
    """Take a tag off a registered model."""
    return await _tag_model(request, removes=True)


async def _tag_model(request: Request, *, removes: bool) -> Response:
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.ModelTag)
    name, change = read_full_name(body.name), _change(body, removes=removes)
    await registry.context.write(lambda tx: commands.tag_model(tx, registry.model(tx, name), **change))
    return answer({})


async def set_version_tag(request: Request) -> Response:
    """Give a version a tag."""
    return await _tag_version(request, removes=False)


async def delete_version_tag(request: Request) -> Response:
    """Take a tag off a version."""
    return await _tag_version(request, removes=True)


async def _tag_version(request: Request, *, removes: bool) -> Response:
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.VersionTag)
    name, change = read_full_name(body.name), _change(body, removes=removes)
    await registry.context.write(
        lambda tx: commands.tag_version(tx, registry.version(tx, name, body.version), **change)
    )
    return answer({})


def _change(tag: contract.ModelTag | contract.VersionTag, *, removes: bool) -> dict[str, Any]:
    return {"added": {}, "removed": [tag.key]} if removes else {"added": {tag.key: tag.value}, "removed": []}


def _model(tx: Transaction, registry: Registry, name: FullName) -> dict[str, Any]:
    model = registry.model(tx, name)
    versions = versions_by_model(tx, registry.scope, [model]).get(model.id, [])
    return {"registered_model": contract.model_json(model, versions)}


def _published(name: FullName, number: str) -> dict[str, Any]:
    entry = find_published(name)
    require_version(name, number)
    return contract.published_version_json(name_of(entry), number, f"{HUB}{entry.hub}")
