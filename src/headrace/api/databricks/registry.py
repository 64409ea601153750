"""What both ways to the registry share: models by their full names, and the models of ``system.ai`` beside them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from weakref import WeakValueDictionary

import msgspec
from fastapi import Request

from headrace.api.databricks.place import workspace_of
from headrace.api.requests import Context, context_of, principal_of
from headrace.catalogue import Entry
from headrace.control.commands import unity_catalog as commands
from headrace.control.registration import UploadPlaces, concluded
from headrace.control.system_ai import published
from headrace.resources.access import Permission
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope
from headrace.resources.unity_catalog import FullName, read_full_name
from headrace.store import Transaction

_LOCKS: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
"""One for each version whose files are being written or looked at. There is one control process."""


class Registry:
    """The registry as one request sees it.

    Args:
        request: It.
        permission: What it needs.

    Raises:
        RoleMissing: The key may not.
    """

    def __init__(self, request: Request, permission: Permission = Permission.READ) -> None:
        self.context: Context = context_of(request)
        self.scope: Scope = workspace_of(request)
        principal_of(request).require(permission, self.scope.project)
        self.places = UploadPlaces(self.context.layout.uploads_dir)

    def model(self, tx: Transaction, name: FullName) -> Model:
        """A registered model that has a row, to be changed.

        Raises:
            RoleMissing: It is one of ``system.ai``.
            ModelNotFound: There is none.
        """
        commands.require_not_system(name.catalog)
        return commands.find_registered(tx, self.scope, name)

    def version(self, tx: Transaction, name: FullName, reference: str) -> ModelVersion:
        """A version that has a row, to be changed.

        Raises:
            RoleMissing: It is one of ``system.ai``.
            ModelNotFound: There is none.
        """
        return commands.find_registered_version(tx, self.model(tx, name), reference)

    async def conclude(self, name: FullName, number: str) -> ModelVersion:
        """End an upload: READY, or failed with the reason.

        Raises:
            ModelNotFound: There is no such version, or it was deleted while its files were looked at.
            VersionNotReady: It has been concluded before.
        """
        context = self.context
        found = await context.read(lambda tx: self.version(tx, name, number))
        async with upload_lock(found):
            version = await context.read(lambda tx: self.version(tx, name, found.version))
            commands.require_pending(version)
            outcome = await asyncio.to_thread(concluded, self.places, version)
            return await context.write(lambda tx: commands.conclude_version(tx, version, outcome))

    async def delete_version(self, name: FullName, number: str) -> None:
        """Delete a version with what was uploaded of it.

        Raises:
            ModelNotFound: There is no such version.
            StillInUse: It is deployed.
        """

        def delete(tx: Transaction) -> ModelVersion:
            model = self.model(tx, name)
            version = commands.find_registered_version(tx, model, number)
            commands.delete_registered_version(tx, model, version)
            return version

        await self._remove([await self.context.write(delete)])

    async def delete_model(self, name: FullName) -> None:
        """Delete a registered model with all versions and what was uploaded of them.

        Raises:
            ModelNotFound: There is no such model.
            StillInUse: A version of it is deployed.
        """
        await self._remove(await self.context.write(lambda tx: commands.delete_registered(tx, self.model(tx, name))))

    async def _remove(self, versions: Iterable[ModelVersion]) -> None:
        for version in versions:
            if version.registration is not None:
                async with upload_lock(version):
                    await asyncio.to_thread(
                        self.places.remove_version, version.scope, version.model_id, version.version
                    )


class Listed(msgspec.Struct, frozen=True):
    """A registered model in a list: a row, or an entry of the Garden."""

    name: FullName
    row: Model | None = None
    entry: Entry | None = None


def upload_lock(version: ModelVersion) -> asyncio.Lock:
    """What is held while a version's files get their places, or are looked at."""
    key = f"{version.scope}/{version.model_id}/{version.version}"
    return _LOCKS.setdefault(key, asyncio.Lock())


def listed_models(tx: Transaction, scope: Scope, *, catalog: str = "", schema: str = "") -> list[Listed]:
    """Every registered model, those of ``system.ai`` too, by name.

    Args:
        tx: An open transaction.
        scope: Where.
        catalog: Only those of this catalog; empty: all.
        schema: Only those of this schema; empty: all.
    """
    found = [Listed(name, entry=entry) for name, entry in published().items()]
    rows = [Listed(read_full_name(model.display_name), row=model) for model in commands.registered_models(tx, scope)]
    return sorted(
        (each for each in [*found, *rows] if catalog in ("", each.name.catalog) and schema in ("", each.name.schema)),
        key=lambda each: str(each.name),
    )


def versions_by_model(tx: Transaction, scope: Scope, models: Iterable[Model]) -> dict[str, list[ModelVersion]]:
    """The versions of some models, by the model's id, in their order."""
    found: dict[str, list[ModelVersion]] = defaultdict(list)
    for version in tx.list(ModelVersion, scope=scope, model_id=tuple(model.id for model in models)):
        found[version.model_id].append(version)
    for versions in found.values():
        versions.sort(key=lambda version: int(version.version))
    return found


def sorting_key(version: ModelVersion) -> str:
    """What versions of a list are sorted by: a text whose order is that of their numbers."""
    return f"{version.model_id}/{int(version.version):020d}"
