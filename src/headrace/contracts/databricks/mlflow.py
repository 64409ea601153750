"""The registry as MLflow's client for ``databricks-uc`` knows it: ``/api/2.0/mlflow/unity-catalog``.

The messages are those of ``databricks_uc_registry_messages.proto`` in MLflow's repository, as JSON. Whatever is asked
with GET is in the query, everything else in the body, deletions too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.contracts.databricks.registry_bodies import PageQuery
from headrace.contracts.databricks.unity_catalog import milliseconds, status_of, storage_of
from headrace.resources.errors import BadField
from headrace.resources.models import Model, ModelVersion
from headrace.resources.unity_catalog import FullName

_FILTER = re.compile(r"""\s*(?P<field>name|run_id)\s*=\s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")\s*""")


class Tag(msgspec.Struct, frozen=True):
    """A key with a value, which may be empty."""

    key: str
    value: str = ""


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A registered model, by its full name."""

    name: str


class CreateModel(Named, frozen=True, kw_only=True):
    """A registered model that is to be made."""

    description: str = ""
    tags: tuple[Tag, ...] = ()


class UpdateModel(Named, frozen=True, kw_only=True):
    """What is to be different about it; what is left out stays."""

    new_name: str = ""
    description: str | None = None


class Versioned(Named, frozen=True, kw_only=True):
    """A version of a registered model."""

    version: str


class CreateVersion(Named, frozen=True, kw_only=True):
    """A version that is to be made: it gets its number, and its files come after that.

    Attributes:
        source: Where the client has them from.
    """

    source: str = ""
    run_id: str | None = None
    description: str = ""
    tags: tuple[Tag, ...] = ()


class UpdateVersion(Versioned, frozen=True, kw_only=True):
    """What is to be different about it; what is left out stays."""

    description: str | None = None


class Aliased(Named, frozen=True, kw_only=True):
    """An alias of a registered model."""

    alias: str


class SetAlias(Aliased, frozen=True, kw_only=True):
    """The version that an alias is for."""

    version: str


class ModelTag(Named, frozen=True, kw_only=True):
    """A tag of a registered model."""

    key: str
    value: str = ""


class VersionTag(Versioned, frozen=True, kw_only=True):
    """A tag of a version."""

    key: str
    value: str = ""


class SearchVersions(PageQuery, frozen=True, kw_only=True):
    """Which versions: those of a name or of a run, or all."""

    filter: str = ""

    @property
    def wanted(self) -> tuple[str, str]:
        """The field that is compared and the value; both empty for all.

        Raises:
            BadField: It is not a comparison that the client's documentation names.
        """
        if not self.filter.strip():
            return "", ""
        match = _FILTER.fullmatch(self.filter)
        if match is None:
            raise BadField(
                "The filter is not one comparison of name or run_id.",
                evidence=f"It is {self.filter[:200]!r}.",
                fix="Such as: name = 'ml.llm.my_model'.",
            )
        return match["field"], match["single"] if match["single"] is not None else match["double"]


def tags_of(tags: Sequence[Tag]) -> dict[str, str]:
    """Tags as a map; of one that is there twice the last."""
    return {tag.key: tag.value for tag in tags}


def model_json(model: Model, versions: Sequence[ModelVersion] = ()) -> dict[str, Any]:
    """``RegisteredModel``."""
    return {
        "name": model.display_name,
        "creation_timestamp": milliseconds(model.created_at),
        "last_updated_timestamp": milliseconds(model.updated_at),
        "user_id": model.scope.project,
        "description": model.description,
        "aliases": [alias for version in versions for alias in _aliases(version)],
        "tags": _tags(model.labels),
    }


def published_json(name: FullName, title: str) -> dict[str, Any]:
    """The same of a model of ``system.ai``."""
    return {"name": str(name), "user_id": name.catalog, "description": title}


def version_json(name: FullName, version: ModelVersion) -> dict[str, Any]:
    """``ModelVersion``."""
    registration = version.registration
    return {
        "name": str(name),
        "version": version.version,
        "creation_timestamp": milliseconds(version.created_at),
        "last_updated_timestamp": milliseconds(max(version.created_at, version.updated_at)),
        "user_id": registration.created_by if registration else version.scope.project,
        "description": version.description,
        "source": registration.source if registration else version.artifact_uri,
        "run_id": registration.run_id if registration else "",
        "status": str(status_of(version)),
        "status_message": registration.message if registration else "",
        "storage_location": storage_of(name, version),
        "aliases": _aliases(version),
        "tags": _tags(version.labels),
    }


def published_version_json(name: FullName, number: str, source: str) -> dict[str, Any]:
    """The same of the version of a model of ``system.ai``."""
    return {"name": str(name), "version": number, "source": source, "status": "READY"}


def _aliases(version: ModelVersion) -> list[dict[str, str]]:
    return [{"alias": alias, "version": version.version} for alias in version.aliases]


def _tags(labels: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in labels.items()]
