"""Keep what somebody measured of a replica, and forget it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.control.profiling import keep_profile
from headrace.resources.deployments import Deployment
from headrace.resources.errors import BadField, DeploymentNotFound, ProfileNotFound
from headrace.resources.external import EXTERNAL
from headrace.resources.models import ModelVersion
from headrace.resources.names import Scope
from headrace.resources.profiles import Point, Profile
from headrace.store import Transaction

MOST_POINTS = 1_000

_MOST_TOKENS = 10_000_000
_MOST_AT_ONCE = 100_000
_MOST_CORES = 100_000
_BETWEEN_S = (1e-6, 1e6)


def store_profile(
    tx: Transaction,
    scope: Scope,
    deployment_id: str,
    points: Sequence[Point],
    *,
    first_s: float,
    gap_s: float,
    cores: int,
    now: float,
) -> Profile:
    """Fit points to a cost, keep both, and have what was sold of this version go by them.

    What they hold for (runtime, hardware, the engine's arguments) is read from the deployment, not told.

    Args:
        tx: An open transaction.
        scope: Where the deployment is.
        deployment_id: Whose replica was measured.
        points: What was measured.
        first_s: The longest time to first token, for how many at a time keep it.
        gap_s: The longest time between two tokens, likewise.
        cores: That it had; 0: its share of the machine's now.
        now: Unix seconds.

    Raises:
        DeploymentNotFound: There is no such deployment.
        BadField: A number cannot have been measured; or the deployment never ran, or is somebody else's server.
        ProfileTooSmall: The points do not tell a cost.
    """
    deployment = tx.get(Deployment, scope=scope, id=deployment_id)
    if deployment is None:
        raise DeploymentNotFound(f"There is no deployment {deployment_id!r}.", fix="`headrace deployments` lists them.")
    where = {"scope": scope, "model_id": deployment.model_id, "version": deployment.model_version}
    known = deployment.runtime and deployment.max_model_len and tx.get(ModelVersion, **where)
    if not known or deployment.runtime == EXTERNAL:
        raise BadField(
            f"Deployment {deployment_id} has no replica of ours that could have been measured.",
            evidence=f"It is {deployment.state}, with runtime {deployment.runtime or '(none yet)'!r}.",
        )
    _check(points, first_s, gap_s)
    _require("cores", cores, 0, _MOST_CORES)
    return keep_profile(tx, deployment, points, first_s=first_s, gap_s=gap_s, cores=cores, now=now)


def delete_profile(tx: Transaction, scope: Scope, profile_id: str) -> Profile:
    """Forget a profile; what was sold by it stays as it was sold.

    Raises:
        ProfileNotFound: There is none of this id.
    """
    profile = tx.get(Profile, scope=scope, id=profile_id)
    if profile is None:
        raise ProfileNotFound(f"There is no profile {profile_id!r}.", fix="`headrace profiles` lists them.")
    tx.delete(profile)
    return profile


def _check(points: Sequence[Point], first_s: float, gap_s: float) -> None:
    if len(points) > MOST_POINTS:
        raise BadField(f"A profile has at most {MOST_POINTS:,} points.", evidence=f"There are {len(points):,}.")
    for name, limit_s in (("first_s", first_s), ("gap_s", gap_s)):
        _require(name, limit_s, *_BETWEEN_S)
    for point in points:
        for name in ("prompt_tokens", "output_tokens"):
            _require(name, getattr(point, name), 1, _MOST_TOKENS)
        _require("concurrency", point.concurrency, 1, _MOST_AT_ONCE)
        for name in ("requests", "wall_s"):
            _require(name, getattr(point, name), *_BETWEEN_S)
        for name in ("first_s", "gap_s"):
            _require(name, getattr(point, name), 0.0, _BETWEEN_S[1])


def _require(name: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise BadField(f"{name} cannot be {value:g}.", evidence=f"It lies between {least:g} and {most:g}.")
