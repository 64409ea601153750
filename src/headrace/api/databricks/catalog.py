"""``/api/2.1/unity-catalog``: registered models, versions, aliases, catalogs and schemas, as Databricks' SDK asks."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from headrace.api.databricks.registry import Registry, listed_models, sorting_key, versions_by_model
from headrace.api.requests import answer, body_of, flag, principal_of
from headrace.contracts.databricks import unity_catalog as contract
from headrace.contracts.databricks.registry_bodies import PageQuery, read_object, read_query
from headrace.control import commands as general
from headrace.control.commands import unity_catalog as commands
from headrace.control.garden import HUB
from headrace.control.system_ai import VERSION, find_published, name_of, require_version
from headrace.resources.access import Permission
from headrace.resources.errors import ModelNotFound
from headrace.resources.models import ModelVersion
from headrace.resources.unity_catalog import FullName, read_full_name, read_part, read_schema_name
from headrace.store import Transaction

DEPLOY = Permission.DEPLOY


async def create_model(request: Request) -> Response:
    """Register a name; its versions are uploaded by MLflow's client, or registered by their address."""
    registry = Registry(request, DEPLOY)
    body = read_object(await body_of(request), contract.ModelBody)
    now, name = registry.context.clock(), body.full_name
    model = await registry.context.write(
        lambda tx: commands.create_registered(tx, registry.scope, name, comment=body.comment, now=now)
    )
    return answer(contract.model_json(model, []))


async def list_models(request: Request) -> Response:
    """Registered models by name, page by page; those of the Model Garden are in system.ai."""
    registry, query = Registry(request), read_query(request.query_params, contract.ModelsQuery)

    def read(tx: Transaction) -> dict[str, Any]:
        catalog, schema = query.catalog_name.lower(), query.schema_name.lower()
        found = listed_models(tx, registry.scope, catalog=catalog, schema=schema)
        page, token = query.page(found, lambda each: str(each.name))
        versions = versions_by_model(tx, registry.scope, [each.row for each in page if each.row])
        shown = [
            contract.model_json(each.row, versions.get(each.row.id, []))
            if each.row
            else contract.published_json(each.name, each.entry.display_name if each.entry else "")
            for each in page
        ]
        return _page("registered_models", shown, token)

    return answer(await registry.context.read(read))


async def get_model(request: Request) -> Response:
    """One registered model."""
    registry, name = Registry(request), _name(request)
    if name.of_system:
        entry = find_published(name)
        return answer(contract.published_json(name_of(entry), entry.display_name))
    return answer(await registry.context.read(lambda tx: _model_json(tx, registry, name)))


async def update_model(request: Request) -> Response:
    """Change the comment or the name of a registered model."""
    registry, name = Registry(request, DEPLOY), _name(request)
    change = read_object(await body_of(request), contract.ModelChange)
    new_name = contract.renamed(name, change.new_name) if change.new_name else name

    def update(tx: Transaction) -> dict[str, Any]:
        model = general.change_model(tx, registry.model(tx, name), description=change.comment)
        commands.rename_registered(tx, model, new_name)
        return _model_json(tx, registry, new_name)

    return answer(await registry.context.write(update))


async def delete_model(request: Request) -> Response:
    """Delete a registered model with all its versions, and what was uploaded of them."""
    await Registry(request, DEPLOY).delete_model(_name(request))
    return answer({})


async def list_versions(request: Request) -> Response:
    """The versions of a registered model, page by page."""
    registry, name, query = Registry(request), _name(request), read_query(request.query_params, PageQuery)
    if name.of_system:
        return answer(_page("model_versions", [_published_version(name, VERSION)], ""))

    def read(tx: Transaction) -> dict[str, Any]:
        model = registry.model(tx, name)
        found = versions_by_model(tx, registry.scope, [model]).get(model.id, [])
        page, token = query.page(found, sorting_key)
        return _page("model_versions", [contract.version_json(name, each) for each in page], token)

    return answer(await registry.context.read(read))


async def get_version(request: Request) -> Response:
    """One version, by its number."""
    number = request.path_params["version"]
    return answer(await _version(request, number, by_alias=False))


async def get_version_by_alias(request: Request) -> Response:
    """One version, by an alias."""
    return answer(await _version(request, request.path_params["alias"], by_alias=True))


async def _version(request: Request, reference: str, *, by_alias: bool) -> dict[str, Any]:
    registry, name = Registry(request), _name(request)
    if name.of_system:
        return _published_version(name, "" if by_alias else reference)
    version = await registry.context.read(lambda tx: registry.version(tx, name, reference))
    if by_alias is (reference == version.version):
        raise ModelNotFound(
            f"Registered model '{name}' has no {'alias' if by_alias else 'version'} {reference[:80]!r}."
        )
    return contract.version_json(name, version)


async def update_version(request: Request) -> Response:
    """Change the comment of a version."""
    registry, name = Registry(request, DEPLOY), _name(request)
    change = read_object(await body_of(request), contract.VersionChange)

    def update(tx: Transaction) -> ModelVersion:
        version = registry.version(tx, name, request.path_params["version"])
        return general.change_version(tx, version, description=change.comment)

    return answer(contract.version_json(name, await registry.context.write(update)))


async def delete_version(request: Request) -> Response:
    """Delete a version with what was uploaded of it."""
    await Registry(request, DEPLOY).delete_version(_name(request), request.path_params["version"])
    return answer({})


async def set_alias(request: Request) -> Response:
    """Give an alias to a version; it leaves the one that had it."""
    registry, name, alias = Registry(request, DEPLOY), _name(request), request.path_params["alias"]
    number = str(read_object(await body_of(request), contract.AliasBody).version_num)
    version = await registry.context.write(
        lambda tx: commands.set_registered_alias(tx, registry.model(tx, name), alias, number)
    )
    return answer(next(each for each in contract.aliases_json(name, version) if each["alias_name"] == alias))


async def delete_alias(request: Request) -> Response:
    """Take an alias off whichever version has it."""
    registry, name, alias = Registry(request, DEPLOY), _name(request), request.path_params["alias"]
    await registry.context.write(lambda tx: commands.delete_registered_alias(tx, registry.model(tx, name), alias))
    return answer({})


async def create_catalog(request: Request) -> Response:
    """Make a catalog; none has to be made before a model of it."""
    body = read_object(await body_of(request), contract.NamespaceBody)
    return await _create(request, read_part(body.name, field="name"), body.comment)


async def create_schema(request: Request) -> Response:
    """Make a schema; none has to be made before a model of it."""
    body = read_object(await body_of(request), contract.NamespaceBody)
    catalog = read_part(body.catalog_name, field="catalog_name")
    return await _create(request, f"{catalog}.{read_part(body.name, field='name')}", body.comment)


async def _create(request: Request, name: str, comment: str) -> Response:
    registry, key_id = Registry(request, DEPLOY), principal_of(request).key_id
    now = registry.context.clock()
    made = await registry.context.write(
        lambda tx: commands.create_namespace(tx, registry.scope, name, comment=comment, key_id=key_id, now=now)
    )
    return answer(contract.namespace_json(name, made))


async def list_catalogs(request: Request) -> Response:
    """Catalogs: those that were made, those that names of models begin with, and system."""
    return await _list(request, read_query(request.query_params, PageQuery), "catalogs")


async def list_schemas(request: Request) -> Response:
    """The schemas of a catalog."""
    query = read_query(request.query_params, contract.SchemasQuery)
    return await _list(request, query, "schemas", within=read_part(query.catalog_name, field="catalog_name"))


async def _list(request: Request, query: PageQuery, field: str, *, within: str = "") -> Response:
    registry = Registry(request)
    known = await registry.context.read(lambda tx: commands.namespaces_of(tx, registry.scope))
    if within and within not in known:
        raise commands.namespace_not_found(within)
    names = sorted(name for name in known if (name.startswith(f"{within}.") if within else "." not in name))
    page, token = query.page(names, str)
    return answer(_page(field, [contract.namespace_json(name, known[name]) for name in page], token))


async def get_catalog(request: Request) -> Response:
    """One catalog."""
    return await _get(request, read_part(request.path_params["name"], field="name"))


async def get_schema(request: Request) -> Response:
    """One schema."""
    return await _get(request, ".".join(read_schema_name(request.path_params["name"])))


async def _get(request: Request, name: str) -> Response:
    registry = Registry(request)
    known = await registry.context.read(lambda tx: commands.namespaces_of(tx, registry.scope))
    if name not in known:
        raise commands.namespace_not_found(name)
    return answer(contract.namespace_json(name, known[name]))


async def delete_catalog(request: Request) -> Response:
    """Delete a catalog without models; with force its empty schemas go along."""
    return await _delete(request, read_part(request.path_params["name"], field="name"))


async def delete_schema(request: Request) -> Response:
    """Delete a schema without models."""
    return await _delete(request, ".".join(read_schema_name(request.path_params["name"])))


async def _delete(request: Request, name: str) -> Response:
    registry, force = Registry(request, DEPLOY), flag(request, "force")
    await registry.context.write(lambda tx: commands.delete_namespace(tx, registry.scope, name, force=force))
    return answer({})


def _name(request: Request) -> FullName:
    return read_full_name(request.path_params["name"])


def _model_json(tx: Transaction, registry: Registry, name: FullName) -> dict[str, Any]:
    model = registry.model(tx, name)
    return contract.model_json(model, versions_by_model(tx, registry.scope, [model]).get(model.id, []))


def _published_version(name: FullName, number: str) -> dict[str, Any]:
    entry = find_published(name)
    require_version(name, number)
    return contract.published_version_json(name_of(entry), number, f"{HUB}{entry.hub}")


def _page(field: str, shown: list[dict[str, Any]], token: str) -> dict[str, Any]:
    return {field: shown, "next_page_token": token} if token else {field: shown}
