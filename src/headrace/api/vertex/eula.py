"""Licences of publisher models: accept one for a project, and look whether it has."""

from __future__ import annotations

from fastapi import Request, Response

from headrace.api.requests import answer, body_of, context_of, principal_of
from headrace.catalogue import find_entry
from headrace.contracts.vertex.eula import eula_json, read_eula
from headrace.control import commands
from headrace.resources.names import DEFAULT_LOCATION, Scope


async def check(request: Request) -> Response:
    """Whether the project may deploy a model as far as its licence goes."""
    entry, project = find_entry(read_eula(await body_of(request))), _project(request)
    accepted = await context_of(request).read(lambda tx: commands.licence_accepted(tx, project, entry))
    return answer(eula_json(entry.name, accepted=accepted))


async def accept(request: Request) -> Response:
    """Accept a model's licence for the project."""
    context, entry, project = context_of(request), find_entry(read_eula(await body_of(request))), _project(request)
    by = principal_of(request).key_id
    await context.write(lambda tx: commands.accept_licence(tx, project, entry, by=by, now=context.clock()))
    return answer(eula_json(entry.name, accepted=True))


def _project(request: Request) -> str:
    return Scope(request.path_params["project"], DEFAULT_LOCATION).project
