"""An entity of ``system.ai`` that is to be deployed: located as the Model Garden's are, and given to the project."""

from __future__ import annotations

from collections.abc import Callable

from headrace.api.garden import locate
from headrace.api.requests import Context
from headrace.control.entities import find_entity
from headrace.control.garden import Located
from headrace.control.system_ai import VERSION, entity_of_garden, published_version, register_published
from headrace.resources.errors import BadName
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope
from headrace.resources.unity_catalog import FullName, read_full_name
from headrace.store import Transaction


async def prepared(
    context: Context, scope: Scope, name: str, version: str = VERSION
) -> tuple[Model, ModelVersion] | None:
    """The project's model and version of an entity of ``system.ai``, made if need be; None for any other entity.

    It asks the Hub and mirrors, so it is awaited before the transaction that deploys; from then on the version is found
    by its name as every other registered one.

    Raises:
        StillInUse: Its weights are at another address now, and what is deployed uses the old one.
        HeadraceError: As `_located`.
    """
    full_name = _system_name(name)
    if full_name is None:
        return None
    located, now = await _located(context, scope, full_name, version), context.clock()
    return await context.write(lambda tx: register_published(tx, scope, full_name, located, now=now))


async def finder(context: Context, scope: Scope, name: str, version: str) -> Callable[[Transaction], ModelVersion]:
    """What finds the version that an entity is, in a transaction that only reads; one of ``system.ai`` is not stored.

    Raises:
        HeadraceError: As `_located`, of an entity of ``system.ai``; of others the finder raises.
    """
    full_name = _system_name(name)
    if full_name is None:
        return lambda tx: find_entity(tx, scope, name, version)[1]
    located, now = await _located(context, scope, full_name, version), context.clock()
    return lambda tx: published_version(tx, scope, full_name, located, now=now)


def _system_name(name: str) -> FullName | None:
    """The name of an entity of ``system.ai``; None of any other."""
    try:
        full_name = read_full_name(name)
    except BadName:
        return None
    return full_name if full_name.of_system else None


async def _located(context: Context, scope: Scope, name: FullName, version: str) -> Located:
    """Where its weights are.

    Raises:
        ModelNotFound: ``system.ai`` has no such model or version.
        InstructOnly: It is a base model of Llama.
        LicenceNotAccepted: The project did not accept its licence.
        ArtifactsNotFound: Its weights are neither on the Hub, as far as that can be reached, nor in a mirror.
    """
    return await locate(context, entity_of_garden(name, version), scope.project)
