"""Keys: make, list, limit, revoke."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fastapi import Request, Response

from headrace.api.native.bodies import read_body
from headrace.api.native.nouns import noun_json, reach_of_project
from headrace.api.requests import answer, context_of, principal_of
from headrace.contracts.vertex.service_accounts import service_account_file
from headrace.control import commands
from headrace.resources.access import KeyFormat, Permission, Role
from headrace.resources.errors import KeyNotFound
from headrace.resources.limits import KeyLimits
from headrace.resources.names import DEFAULT_PROJECT
from headrace.resources.operations import ApiKey
from headrace.store import Transaction


class KeyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose key it is, and what it may do where.

    Attributes:
        format: A secret that is sent with each request, or a service account's file, whose private key signs tokens.
        requests_per_minute: As in `KeyLimits`; so the next one.
    """

    name: str
    project: str = DEFAULT_PROJECT
    role: Role = Role.PREDICTOR
    format: KeyFormat = KeyFormat.PLAIN
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class ChangeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different about a key: what is left out stays, null takes a limit away."""

    requests_per_minute: int | msgspec.UnsetType | None = msgspec.UNSET
    tokens_per_minute: int | msgspec.UnsetType | None = msgspec.UNSET


async def create_key(request: Request) -> Response:
    """Make a key. Its secret, or its private key, is in this answer and nowhere else."""
    context = context_of(request)
    body = await read_body(request, KeyBody)
    principal_of(request).require(Permission.ADMINISTER, body.project)
    limits = KeyLimits(requests_per_minute=body.requests_per_minute, tokens_per_minute=body.tokens_per_minute)
    pair = await asyncio.to_thread(commands.new_key_pair) if body.format is KeyFormat.SERVICE_ACCOUNT else None
    key, secret = await context.write(
        lambda tx: commands.create_key(
            tx,
            name=body.name,
            project=body.project,
            role=body.role,
            now=context.clock(),
            limits=limits,
            public_key=pair.public_key if pair else "",
        )
    )
    if pair is None:
        return answer({**_key_json(key), "secret": secret})
    return answer({**_key_json(key), "service_account": _file(request, key, pair)})


def _file(request: Request, key: ApiKey, pair: commands.KeyPair) -> dict[str, str]:
    """The file of a service account; its library asks for tokens at the address by which we were reached now."""
    scheme = request.headers.get("x-forwarded-proto", "http")  # the gateway's word: no client's comes through it
    return service_account_file(
        key_id=key.id,
        project=key.project,
        private_key=pair.private_key,
        token_uri=f"{scheme}://{request.headers.get('host', 'localhost')}/token",
    )


def _key_json(key: ApiKey) -> dict[str, Any]:
    fields = noun_json(key)
    del fields["public_key"]
    return {**fields, "format": key.format}


async def list_keys(request: Request) -> Response:
    """The keys of the projects that the caller's key reaches, revoked ones included."""
    conditions = reach_of_project(request)
    found = await context_of(request).read(lambda tx: tx.list(ApiKey, **conditions))
    return answer({"keys": [_key_json(key) for key in found]})


async def change_key(request: Request) -> Response:
    """Give a key other limits; they hold from now on, and what is under way goes on."""
    body = await read_body(request, ChangeBody)
    changes = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not msgspec.UNSET}

    def change(tx: Transaction) -> ApiKey:
        key = _reached(tx, request)
        return commands.limit_key(tx, key.id, msgspec.structs.replace(key.limits, **changes))

    return answer(_key_json(await context_of(request).write(change)))


async def revoke_key(request: Request) -> Response:
    """Make a key worthless, at once and for good."""
    context = context_of(request)

    def revoke(tx: Transaction) -> ApiKey:
        return commands.revoke_key(tx, _reached(tx, request).id, now=context.clock())

    return answer(_key_json(await context.write(revoke)))


def _reached(tx: Transaction, request: Request) -> ApiKey:
    """The key that the path names.

    Raises:
        KeyNotFound: There is none, or it is of a project that the caller's key does not reach.
    """
    key_id = request.path_params["key"]
    key = tx.get(ApiKey, id=key_id)
    if key is None or not principal_of(request).reaches(key.project):
        raise KeyNotFound(f"There is no key {key_id!r}.", fix="`headrace keys list` shows them.")
    return key
