"""Deploying published models, for every contract: a request's model becomes an address that commands know."""

from __future__ import annotations

import asyncio

import msgspec

from headrace.api.requests import Context
from headrace.catalogue import find_entry, find_on_hub
from headrace.control import commands
from headrace.control.garden import Garden, Located, Wanted
from headrace.storage import Credentials


async def locate(context: Context, wanted: Wanted, project: str) -> Located:
    """Where a published model's weights are. A licence that the project accepted once counts as accepted.

    Raises:
        HeadraceError: As `Garden.locate`.
    """
    entry = find_entry(wanted.catalogue) if wanted.catalogue else find_on_hub(wanted.hub)
    if entry is not None and not wanted.accepted:
        accepted = await context.read(lambda tx: commands.licence_accepted(tx, project, entry))
        wanted = msgspec.structs.replace(wanted, accepted=accepted)
    garden = Garden(context.mirrors, Credentials(context.layout.credentials))
    return await asyncio.to_thread(garden.locate, wanted, project)


def read_published(address: str, *, accepted: bool) -> Wanted | None:
    """A published model that stands where an address may: ``garden:NAME`` or ``hf:OWNER/NAME``; None for an address."""
    kind, _, name = address.partition(":")
    if name.startswith("//") or kind not in {"garden", "hf"}:
        return None
    return Wanted(catalogue=name, accepted=accepted) if kind == "garden" else Wanted(hub=name, accepted=accepted)


def with_weights(order: commands.DeployRequest, located: Located) -> commands.DeployRequest:
    """An order for a published model, with where its weights are and what it is called."""
    return msgspec.structs.replace(
        order,
        artifact_uri=located.address,
        model_display_name=order.model_display_name or located.title,
        publisher_model=located.publisher_model,
    )
