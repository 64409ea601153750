"""Profiles: what replicas were measured to carry. List, look, keep, forget."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request, Response

from headrace.api.managing import require_manager_of_deployment, require_manager_of_sold
from headrace.api.native.bodies import read_body
from headrace.api.native.nouns import noun_json, reach
from headrace.api.requests import Context, answer, context_of, number, principal_of
from headrace.capacity.units import FIRST_S, GAP_S, UNITS_PER_MINUTE, chunk, tokens_per_s
from headrace.control import commands
from headrace.control.placement import home
from headrace.control.profiling import summary
from headrace.control.standing import Standing, standing_of, version_of, why_stale
from headrace.resources.access import Permission
from headrace.resources.deployments import Deployment
from headrace.resources.errors import ProfileNotFound
from headrace.resources.models import ModelVersion
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_PROJECT, Scope
from headrace.resources.profiles import Point, Profile
from headrace.store import Order, Transaction

_LONGEST_LIST = 1_000.0


class PointBody(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `Point`."""


class ProfileBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured of a replica.

    Attributes:
        deployment: Id of its deployment, which says what the measurement holds for.
        points: At least two lengths of prompts, two of answers, and two numbers at a time.
        first_s: The longest time to first token that 99 of 100 requests may have.
        gap_s: The longest time between two tokens, likewise.
        cores: Of a CPU, those that it had: the machine carries it once for each time that it has so many. 0: its even
            share of the machine's, as many engines as run there now.
    """

    deployment: str
    points: tuple[PointBody, ...]
    project: str = DEFAULT_PROJECT
    location: str = DEFAULT_LOCATION
    first_s: float = FIRST_S
    gap_s: float = GAP_S
    cores: int = 0


async def list_profiles(request: Request) -> Response:
    """Profiles, newest first; ``model`` and ``limit`` narrow them down."""
    context, conditions = context_of(request), reach(request)
    model_id, _, version = request.query_params.get("model", "").partition("@")
    conditions |= {"model_id": model_id} if model_id else {}
    conditions |= {"model_version": version} if version else {}
    limit = int(number(request, "limit", default=100, most=_LONGEST_LIST))
    newest = (Order("created_at", descending=True), Order("id", descending=True))

    def read(tx: Transaction) -> list[dict[str, Any]]:
        return [_profile_json(tx, context, one) for one in tx.page(Profile, limit=limit, orders=newest, **conditions)]

    return answer({"profiles": await context.read(read)})


async def create_profile(request: Request) -> Response:
    """Keep what was measured of a deployment's replica; what is sold of that version goes by it from now on."""
    context, body = context_of(request), await read_body(request, ProfileBody)
    principal_of(request).require(Permission.DEPLOY, body.project)
    scope = Scope(body.project, body.location)

    def store(tx: Transaction) -> dict[str, Any]:
        _require_manager(tx, request, scope, body.deployment)
        profile = commands.store_profile(
            tx,
            scope,
            body.deployment,
            [Point(**msgspec.structs.asdict(point)) for point in body.points],
            first_s=body.first_s,
            gap_s=body.gap_s,
            cores=body.cores,
            now=context.clock(),
        )
        return _profile_json(tx, context, profile)

    return answer(await context.write(store))


async def get_profile(request: Request) -> Response:
    """One, with all that was measured, and whether it still holds."""
    context = context_of(request)
    return answer(await context.read(lambda tx: _profile_json(tx, context, _profile(tx, request))))


async def delete_profile(request: Request) -> Response:
    """Forget it; what was sold by it stays as it was sold. The answer is what was forgotten."""

    def delete(tx: Transaction) -> Profile:
        profile = _profile(tx, request)
        where = {"scope": profile.scope, "model_id": profile.model_id, "version": profile.model_version}
        version = tx.get(ModelVersion, **where)
        if version is not None:
            require_manager_of_sold(tx, request, version, Standing(profile.runtime, profile.hardware, profile.engine))
        return commands.delete_profile(tx, profile.scope, profile.id)

    return answer(noun_json(await context_of(request).write(delete)))


def _require_manager(tx: Transaction, request: Request, scope: Scope, deployment_id: str) -> None:
    """Hold that whoever asks may change all that a profile of a deployment changes: itself, and what is sold by it.

    Raises:
        NotOnAccessList: An endpoint of one of those has a list, and they are not on it with ``CAN_MANAGE``.
    """
    require_manager_of_deployment(tx, request, scope, deployment_id)
    deployment = tx.get(Deployment, scope=scope, id=deployment_id)
    version = version_of(tx, deployment) if deployment is not None else None
    if deployment is not None and version is not None:
        require_manager_of_sold(tx, request, version, standing_of(deployment, version, home(tx)))


def _profile(tx: Transaction, request: Request) -> Profile:
    """The profile in the path; those of other projects are not there."""
    wanted = request.path_params["profile"]
    found = tx.list(Profile, id=wanted, **reach(request))
    if not found:
        raise ProfileNotFound(f"There is no profile {wanted!r}.", fix="`headrace profiles` lists them.")
    return found[0]


def _profile_json(tx: Transaction, context: Context, profile: Profile) -> dict[str, Any]:
    """A profile with what it says of throughput, and whether it still holds."""
    stale = why_stale(tx, profile, context.layout.data_dir)
    return noun_json(profile) | {
        "stale": bool(stale),
        "stale_because": stale,
        "tokens_per_s": tokens_per_s(profile.carried),
        "chunk": chunk(profile.carried),
        "model_units_per_minute": UNITS_PER_MINUTE,
        "summary": summary(profile),
    }
