"""When a replica is measured before its deployment is used, and what becomes of a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.capacity.measuring import grid_for
from headrace.capacity.units import FIRST_S, GAP_S, OUTPUT_TOKENS, PROMPT_TOKENS, chunk, tokens_per_s
from headrace.control.guarantees import follow
from headrace.control.operations import deploy_runs
from headrace.control.placement import home
from headrace.control.pool import LIVE, STARTING
from headrace.control.standing import Standing, newest_profile, standing_of, version_of
from headrace.control.timeline import note
from headrace.resources.assignments import ProfileOrder, ProfileReport
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import Failure, HeadraceError
from headrace.resources.models import ModelVersion
from headrace.resources.names import new_id
from headrace.resources.profiles import Carried, Point, Profile
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction

BUDGET_S = 80.0
"""What a measurement of its own takes at most: so much later is a deployment READY that was sold a throughput first."""

_OVER = (DeploymentState.FAILED, DeploymentState.DRAINING, DeploymentState.GONE)
_LIVING = tuple(state for state in DeploymentState if state not in _OVER)


def profile_order(
    tx: Transaction, deployment: Deployment, version: ModelVersion, replica: Replica
) -> ProfileOrder | None:
    """What a replica's node is to measure before the replica is READY; None: nothing.

    That is once: of the first replica of a deployment that was sold a throughput and is not used yet, where no profile
    holds for it. A replica that takes another one's place is not measured: it may be that what measured the other one
    killed it.
    """
    if replica.state not in STARTING or not is_sold(tx, deployment) or not deploy_runs(tx, deployment):
        return None
    others = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id)
    first = min(one.epoch for one in others if one.state in LIVE)
    if replica.epoch != first or any(one.state in (ReplicaState.READY, ReplicaState.FAILED) for one in others):
        return None
    if newest_profile(tx, version, standing_of(deployment, version, home(tx))) is not None:
        return None
    return ProfileOrder(grid=grid_for(deployment.max_model_len), budget_s=BUDGET_S, before_at=deployment.deadline_at)


def is_sold(tx: Transaction, deployment: Deployment) -> bool:
    """Whether a deployed model that it serves was sold a throughput."""
    bound = tx.list(DeployedModel, scope=deployment.scope, deployment_id=deployment.id)
    return any(one.provision is not None for one in bound)


def take_report(tx: Transaction, replica: Replica, told: ProfileReport | None, *, now: float) -> None:
    """A replica became READY: keep what was measured of it, or say that the prediction stands.

    Args:
        tx: An open transaction.
        replica: The replica.
        told: What its node measured; None: nothing.
        now: Unix seconds.
    """
    deployment = tx.get(Deployment, scope=replica.scope, id=replica.deployment_id)
    assert deployment is not None, "a foreign key holds it"
    if told is not None and told.failure is None:
        try:
            keep_profile(tx, deployment, told.points, now=now)
        except HeadraceError as error:
            _tell_unmeasured(tx, deployment, error.failure)
    elif told is not None:
        _tell_unmeasured(tx, deployment, told.failure)
    elif is_sold(tx, deployment) and deploy_runs(tx, deployment) and not _is_measured(deployment):
        _tell_unmeasured(tx, deployment, None)


def keep_profile(
    tx: Transaction,
    deployment: Deployment,
    points: Sequence[Point],
    *,
    first_s: float = FIRST_S,
    gap_s: float = GAP_S,
    cores: int = 0,
    now: float,
) -> Profile:
    """Fit what was measured of a deployment's replica, store it, and have what is sold go by it from now on.

    Args:
        tx: An open transaction.
        deployment: Of which CHECKING has chosen the runtime.
        points: What was measured.
        first_s: The longest time to first token.
        gap_s: The longest time between two tokens.
        cores: That it had; 0: its share of the machine's now.
        now: Unix seconds.

    Raises:
        ProfileTooSmall: The points do not tell a cost.
    """
    from headrace.capacity.cost import measured  # noqa: PLC0415  # brings numpy

    version = version_of(tx, deployment)
    assert version is not None, "a model in use is not deleted"
    fitted, carried = measured(points, first_s=first_s, gap_s=gap_s)
    carried = msgspec.structs.replace(carried, cores=cores or _cores_each(tx))
    standing = standing_of(deployment, version, home(tx))
    profile = Profile(
        scope=deployment.scope,
        id=new_id(),
        model_id=deployment.model_id,
        model_version=deployment.model_version,
        runtime=standing.runtime,
        hardware=standing.hardware,
        engine=standing.engine,
        carried=carried,
        points=tuple(points),
        mean_error=fitted.mean_error,
        worst_error=fitted.worst_error,
        created_at=now,
    )
    tx.insert(profile)
    for one in going_by(tx, version, standing):
        _sell_by(tx, one, profile)
    return profile


def going_by(tx: Transaction, version: ModelVersion, standing: Standing) -> list[Deployment]:
    """The deployments of a version that a profile on this standing decides on: they stand so, and are sold by it."""
    where: dict[str, Any] = {"scope": version.scope, "model_id": version.model_id, "model_version": version.version}
    return [
        one
        for one in tx.list(Deployment, **where, state=_LIVING)
        if (one.carried is not None or is_sold(tx, one)) and standing_of(one, version, home(tx)) == standing
    ]


def _cores_each(tx: Transaction) -> int:
    """Cores that an engine of the machine has now, which are shared evenly; 0 where it has accelerators.

    Engines that sleep compute nothing: counted, they would make a share smaller, and what is sold more than there is.
    """
    node = home(tx)
    if node is None or node.hardware.get("gpus"):
        return 0
    engines = tx.list(Replica, node_id=node.id, state=(*STARTING, ReplicaState.READY))
    return max(node.cores // max(len(engines), 1), 1)


def summary(profile: Profile) -> str:
    """What a profile says, as sentences for a person."""
    from headrace.capacity.cost import GOAL  # noqa: PLC0415  # see above

    again = f", more than {GOAL:.0%}: measure again on an idle machine (`headrace profile`)"
    doubt = again if profile.mean_error > GOAL else ""
    return f"{carries(profile.carried)} The fit is {profile.mean_error:.0%} off on average{doubt}."


def carries(carried: Carried) -> str:
    """What a replica carries, as a sentence for a person."""
    if not carried.concurrency:
        limits = f"{carried.first_s:g} s to the first token and {carried.gap_s:g} s to each that follows"
        return f"Measured, not even one request at a time keeps {limits}."
    mix = f"{PROMPT_TOKENS} read and {OUTPUT_TOKENS} written a request, {carried.concurrency} at a time"
    return f"A replica carries {tokens_per_s(carried):,.0f} tokens/s ({mix}); a chunk is {chunk(carried):,}."


def _sell_by(tx: Transaction, deployment: Deployment, profile: Profile) -> None:
    if not profile.carried.concurrency:
        note(tx, deployment, f"{summary(profile)} {_prediction(deployment)}".strip())
        return
    carried = msgspec.structs.replace(profile.carried, profile_id=profile.id)
    follow(tx, tx.move(deployment, deployment.state, detail=summary(profile), carried=carried))


def _is_measured(deployment: Deployment) -> bool:
    return deployment.carried is not None and deployment.carried.measured


def _tell_unmeasured(tx: Transaction, deployment: Deployment, failure: Failure | None) -> None:
    why = f": {failure.message} {failure.evidence}".rstrip() if failure else "."
    note(tx, deployment, f"What a replica carries was not measured{why} {_prediction(deployment)}".strip())


def _prediction(deployment: Deployment) -> str:
    if deployment.carried is None or deployment.carried.measured:
        return ""
    return f"It stays sold by the prediction, {tokens_per_s(deployment.carried):,.0f} tokens/s a replica."
