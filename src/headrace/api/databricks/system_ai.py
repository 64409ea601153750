"""An entity of ``system.ai`` that is to be deployed: located as the Model Garden's are, and given to the project."""

from __future__ import annotations

from headrace.api.garden import locate
from headrace.api.requests import Context
from headrace.control.system_ai import VERSION, entity_of_garden, register_published
from headrace.resources.errors import BadName
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope
from headrace.resources.unity_catalog import read_full_name


async def prepared(
    context: Context, scope: Scope, name: str, version: str = VERSION
) -> tuple[Model, ModelVersion] | None:
    """The project's model and version of an entity of ``system.ai``, made if need be; None for any other entity.

    It asks the Hub and mirrors, so it is awaited before the transaction that deploys; from then on the version is found
    by its name as every other registered one.

    Raises:
        ModelNotFound: ``system.ai`` has no such model or version.
        InstructOnly: It is a base model of Llama.
        LicenceNotAccepted: The project did not accept its licence.
        ArtifactsNotFound: Its weights are neither on the Hub, as far as that can be reached, nor in a mirror.
        StillInUse: Its weights are at another address now, and what is deployed uses the old one.
    """
    try:
        full_name = read_full_name(name)
    except BadName:
        return None
    if not full_name.of_system:
        return None
    located = await locate(context, entity_of_garden(full_name, version), scope.project)
    now = context.clock()
    return await context.write(lambda tx: register_published(tx, scope, full_name, located, now=now))
