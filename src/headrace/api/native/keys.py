"""Keys: make, list, revoke."""

from __future__ import annotations

import msgspec
from fastapi import Request, Response

from headrace.api.native.bodies import read_body
from headrace.api.native.nouns import noun_json, reach_of_project
from headrace.api.requests import answer, context_of, principal_of
from headrace.control import commands
from headrace.resources.access import Permission, Role
from headrace.resources.errors import KeyNotFound
from headrace.resources.names import DEFAULT_PROJECT
from headrace.resources.operations import ApiKey
from headrace.store import Transaction


class KeyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose key it is, and what it may do where."""

    name: str
    project: str = DEFAULT_PROJECT
    role: Role = Role.PREDICTOR


async def create_key(request: Request) -> Response:
    """Make a key. Its secret is in this answer and nowhere else."""
    context = context_of(request)
    body = await read_body(request, KeyBody)
    principal_of(request).require(Permission.ADMINISTER, body.project)
    key, secret = await context.write(
        lambda tx: commands.create_key(tx, name=body.name, project=body.project, role=body.role, now=context.clock())
    )
    return answer({**noun_json(key), "secret": secret})


async def list_keys(request: Request) -> Response:
    """The keys of the projects that the caller's key reaches, revoked ones included."""
    conditions = reach_of_project(request)
    found = await context_of(request).read(lambda tx: tx.list(ApiKey, **conditions))
    return answer({"keys": [noun_json(key) for key in found]})


async def revoke_key(request: Request) -> Response:
    """Make a key worthless, at once and for good."""
    context, key_id = context_of(request), request.path_params["key"]

    def revoke(tx: Transaction) -> ApiKey:
        key = tx.get(ApiKey, id=key_id)
        if key is None or not principal_of(request).reaches(key.project):
            raise KeyNotFound(f"There is no key {key_id!r}.", fix="`headrace keys list` shows them.")
        return commands.revoke_key(tx, key_id, now=context.clock())

    return answer(noun_json(await context.write(revoke)))
