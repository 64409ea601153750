"""Registered models, their versions, catalogs and schemas as ``/api/2.1/unity-catalog`` has them.

https://docs.databricks.com/api/workspace/registeredmodels and .../modelversions: times are Unix milliseconds there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.contracts.databricks.registry_bodies import PageQuery
from headrace.resources.models import Model, ModelVersion, RegistrationState
from headrace.resources.unity_catalog import FullName, Namespace, read_full_name, read_part

METASTORE_ID = "headrace"
"""There is one."""


class ModelBody(msgspec.Struct, frozen=True, kw_only=True):
    """A registered model that is to be made: its name by levels."""

    catalog_name: str
    schema_name: str
    name: str
    comment: str = ""

    @property
    def full_name(self) -> FullName:
        """Its name.

        Raises:
            BadName: It is none.
        """
        return FullName(
            read_part(self.catalog_name, field="catalog_name"),
            read_part(self.schema_name, field="schema_name"),
            read_part(self.name, field="name"),
        )


class ModelChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different about a registered model; what is left out stays.

    Attributes:
        new_name: Its last level, or a full name.
    """

    comment: str | None = None
    new_name: str = ""


class VersionChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different about a version."""

    comment: str | None = None


class AliasBody(msgspec.Struct, frozen=True, kw_only=True):
    """The version that an alias is for."""

    version_num: int


class NamespaceBody(msgspec.Struct, frozen=True, kw_only=True):
    """A catalog or a schema that is to be made.

    Attributes:
        catalog_name: Of a schema.
    """

    name: str
    catalog_name: str = ""
    comment: str = ""


class ModelsQuery(PageQuery, frozen=True, kw_only=True):
    """Which registered models; without a catalog all of them."""

    catalog_name: str = ""
    schema_name: str = ""


class SchemasQuery(PageQuery, frozen=True, kw_only=True):
    """Which schemas."""

    catalog_name: str


def renamed(name: FullName, new_name: str) -> FullName:
    """The full name that a registered model gets.

    Raises:
        BadName: It is none.
    """
    if "." in new_name:
        return read_full_name(new_name, field="new_name")
    return FullName(name.catalog, name.schema, read_part(new_name, field="new_name"))


def model_json(model: Model, versions: Sequence[ModelVersion]) -> dict[str, Any]:
    """``RegisteredModelInfo``."""
    name = read_full_name(model.display_name)
    return {
        **_levels(name),
        "name": name.name,
        "full_name": str(name),
        "comment": model.description,
        "owner": model.scope.project,
        "metastore_id": METASTORE_ID,
        "storage_location": storage_path(name),
        "created_at": milliseconds(model.created_at),
        "updated_at": milliseconds(model.updated_at),
        "aliases": [alias for version in versions for alias in aliases_json(name, version)],
    }


def published_json(name: FullName, title: str) -> dict[str, Any]:
    """The same of a model of ``system.ai``, which has no row; nobody changed it at any time."""
    return {
        **_levels(name),
        "name": name.name,
        "full_name": str(name),
        "comment": title,
        "owner": name.catalog,
        "metastore_id": METASTORE_ID,
        "aliases": [],
    }


def version_json(name: FullName, version: ModelVersion) -> dict[str, Any]:
    """``ModelVersionInfo``."""
    registration = version.registration
    return {
        **_levels(name),
        "model_name": name.name,
        "version": int(version.version),
        "comment": version.description,
        "status": str(status_of(version)),
        "source": registration.source if registration else version.artifact_uri,
        "run_id": registration.run_id if registration else "",
        "created_by": registration.created_by if registration else "",
        "metastore_id": METASTORE_ID,
        "storage_location": storage_of(name, version),
        "created_at": milliseconds(version.created_at),
        "updated_at": milliseconds(max(version.created_at, version.updated_at)),
        "aliases": list(aliases_json(name, version)),
        "headrace": {
            "statusMessage": registration.message if registration else "",
            "artifactUri": version.artifact_uri,
        },
    }


def published_version_json(name: FullName, number: str, source: str) -> dict[str, Any]:
    """The same of the version of a model of ``system.ai``."""
    return {
        **_levels(name),
        "model_name": name.name,
        "version": int(number),
        "status": str(RegistrationState.READY),
        "source": source,
        "metastore_id": METASTORE_ID,
        "aliases": [],
    }


def aliases_json(name: FullName, version: ModelVersion) -> list[dict[str, Any]]:
    """``RegisteredModelAlias`` of each alias of a version."""
    number = int(version.version)
    return [
        {**_levels(name), "model_name": name.name, "alias_name": alias, "version_num": number}
        for alias in version.aliases
    ]


def namespace_json(name: str, made: Namespace | None) -> dict[str, Any]:
    """``CatalogInfo`` or ``SchemaInfo``; without a row it is there because a model's name begins with it."""
    catalog, _, schema = name.partition(".")
    times = {"created_at": milliseconds(made.created_at), "updated_at": milliseconds(made.updated_at)} if made else {}
    return {
        "name": schema or catalog,
        "full_name": name,
        **({"catalog_name": catalog} if schema else {"catalog_type": "MANAGED_CATALOG"}),
        "comment": made.comment if made else "",
        "metastore_id": METASTORE_ID,
        **times,
    }


def status_of(version: ModelVersion) -> RegistrationState:
    """How far its registration is; one that was registered by the address of its files is READY."""
    return version.registration.state if version.registration else RegistrationState.READY


def storage_of(name: FullName, version: ModelVersion) -> str:
    """Where a version's files are for the files API, if they were uploaded; else their address."""
    return f"{storage_path(name)}/{version.version}" if version.registration else version.artifact_uri


def storage_path(name: FullName) -> str:
    """The folder of a registered model in the files API."""
    return f"/Models/{name.catalog}/{name.schema}/{name.name}"


def milliseconds(seconds: float) -> int:
    """Unix seconds as Databricks writes them."""
    return int(seconds * 1000)


def _levels(name: FullName) -> dict[str, str]:
    return {"catalog_name": name.catalog, "schema_name": name.schema}
