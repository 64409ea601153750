"""Quotas: what a project takes and may take; changed by an operator."""

from __future__ import annotations

import msgspec
from fastapi import Request, Response

from headrace.api.native.bodies import read_body
from headrace.api.native.nouns import noun_json
from headrace.api.requests import answer, context_of, principal_of
from headrace.control import commands
from headrace.hardware import read_catalogue
from headrace.resources.access import EVERY_PROJECT, Permission
from headrace.resources.names import DEFAULT_PROJECT


class QuotaBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose quota it is, and how many shares it has."""

    shares: float
    project: str = DEFAULT_PROJECT


async def get_quota(request: Request) -> Response:
    """The project's shares, those taken, and by what."""
    principal, context = principal_of(request), context_of(request)
    own = DEFAULT_PROJECT if principal.project == EVERY_PROJECT else principal.project
    project = request.query_params.get("project", own)
    principal.require(Permission.READ, project)
    catalogue = read_catalogue(context.layout.data_dir)
    found = await context.read(lambda tx: commands.usage(tx, project, catalogue))
    deployments = [{"id": name, "size": size, "share": share} for name, (size, share) in found.deployments.items()]
    return answer({"project": project, "shares": found.shares, "used": found.used, "deployments": deployments})


async def set_quota(request: Request) -> Response:
    """Change it; what runs goes on."""
    context = context_of(request)
    body = await read_body(request, QuotaBody)
    quota = await context.write(lambda tx: commands.set_quota(tx, body.project, body.shares, now=context.clock()))
    return answer(noun_json(quota))
