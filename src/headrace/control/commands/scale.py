"""At what scale a deployment stands, and while nobody asks it; and how that is changed."""

from __future__ import annotations

import math

from headrace.control.bounds import MOST_REPLICAS, set_bounds
from headrace.control.guarantees import provisions_of
from headrace.resources.autoscaling import Autoscaling
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, DeploymentNotFound
from headrace.resources.external import EXTERNAL
from headrace.resources.names import Scope
from headrace.resources.states import DeploymentState
from headrace.store import Transaction

SHORTEST_IDLE_S = 1.0
"""Control hears of a deployment that nobody asks for within about two seconds; less would promise what is not held."""

_ENDING = frozenset({DeploymentState.DRAINING, DeploymentState.FAILED, DeploymentState.GONE})


def check_idle_s(after_s: float, *, external: bool) -> None:
    """Hold that a deployment may scale to zero after so long without a request; 0: never.

    Raises:
        BadField: It may not.
    """
    if after_s and not SHORTEST_IDLE_S <= after_s < math.inf:
        raise BadField(
            "A deployment scales to zero after a second without a request, or later.",
            evidence=f"scale_to_zero_after_s is {after_s}.",
            fix="Give seconds, such as 300; or 0, and it never does.",
        )
    if after_s and external:
        raise BadField("An external server is not ours to stop.", fix="Leave scale_to_zero_after_s out.")


def scale_to_zero(tx: Transaction, scope: Scope, deployment_id: str, after_s: float) -> Deployment:
    """Have a deployment scale to zero after so many seconds without a request from now on; 0: never, and it wakes up.

    Raises:
        BadField: It may not, or what of its throughput is guaranteed decides on that.
        DeploymentNotFound: There is no such deployment, or it ends.
    """
    deployment = _going_on(tx, scope, deployment_id)
    check_idle_s(after_s, external=deployment.runtime == EXTERNAL)
    if after_s == deployment.scale_to_zero_after_s:
        return deployment
    if not after_s or any(one.min_tokens_per_s for one in provisions_of(tx, deployment)):
        _require_unsold(tx, deployment, "Whether it scales to zero follows what of its throughput is guaranteed.")
    told = f"From now on it scales to zero after {after_s:g} s without a request."
    state = deployment.state
    if not after_s:
        wakes = state is DeploymentState.ASLEEP
        told = "It scales to zero no more" + (": it wakes up." if wakes else ".")
        state = DeploymentState.PLACING if wakes else state
    return tx.move(deployment, state, detail=told, scale_to_zero_after_s=after_s)


def check_replicas(least: int, most: int, *, first: int = 0) -> None:
    """Hold that a pool may have so many replicas, and begin with the ``first``; 0: with the fewest.

    Raises:
        BadField: It may not.
    """
    if not 1 <= least <= most:
        raise BadField(
            "There must be at least one replica, and no fewer at most than at least.",
            evidence=f"At least {least}, at most {most} were asked for.",
        )
    if most > MOST_REPLICAS:
        raise BadField(
            "So many replicas are more than a deployment may have.",
            evidence=f"At most {most:,} were asked for; {MOST_REPLICAS:,} are allowed.",
        )
    if first and not least <= first <= most:
        raise BadField(
            "A pool begins with no fewer replicas than it has at least, and no more than at most.",
            evidence=f"{first} were asked for at first, {least} to {most} afterwards.",
        )


def resize(
    tx: Transaction, scope: Scope, deployment_id: str, *, least: int | None = None, most: int | None = None
) -> Deployment:
    """Have a deployment run another number of replicas from now on.

    New ones get requests once they are READY. Those that are too many get none from now on, and end with their last.

    Args:
        tx: An open transaction.
        scope: Where.
        deployment_id: The deployment.
        least: The fewest that run; None: as many as now.
        most: The most that run. Where that is more than the fewest, how many run follows what they have to do. None: as
            many as now and no fewer than ``least``, or of a pool whose number is fixed, exactly ``least``.

    Raises:
        BadField: It may not have so many, or its throughput decides on that.
        DeploymentNotFound: There is no such deployment, or it ends.
    """
    deployment = _going_on(tx, scope, deployment_id)
    least = deployment.min_replicas if least is None else least
    if most is None:
        most = max(deployment.max_replicas, least) if deployment.autoscaled else least
    check_replicas(least, most)
    if deployment.runtime == EXTERNAL and most != 1:
        raise BadField("An external server is one replica.", evidence=f"max_replicas is {most}.")
    if (least, most) != (deployment.min_replicas, deployment.max_replicas):
        _require_unsold(tx, deployment, "Its replicas follow the throughput that it was sold.")
    return set_bounds(tx, deployment, least, most)


def autoscale(tx: Transaction, scope: Scope, deployment_id: str, wish: Autoscaling) -> Deployment:
    """Have a deployment scale by other metrics, or targets, from now on; between the bounds that it has.

    Raises:
        BadField: It is one replica, and somebody else's.
        DeploymentNotFound: There is no such deployment, or it ends.
    """
    deployment = _going_on(tx, scope, deployment_id)
    if deployment.runtime == EXTERNAL:
        raise BadField("An external server is one replica.", fix="Leave autoscaling out.")
    if wish == deployment.autoscaling:
        return deployment
    targets = ", ".join(f"{one.metric}={one.target}" for one in wish.targets) or "the default"
    told = f"From now on it scales by {targets}."
    return tx.move(deployment, deployment.state, detail=told, autoscaling=wish)


def _require_unsold(tx: Transaction, deployment: Deployment, what: str) -> None:
    """Hold that nothing of it was sold by its throughput, which decides on its scale alone."""
    bound = tx.list(DeployedModel, scope=deployment.scope, deployment_id=deployment.id)
    sold = [one.id for one in bound if one.provision is not None]
    if sold:
        raise BadField(
            what,
            evidence=f"Deployed with a throughput: {', '.join(sold)}.",
            fix="Change that: `headrace endpoints throughput ENDPOINT MODEL=MIN:MAX`.",
        )


def _going_on(tx: Transaction, scope: Scope, deployment_id: str) -> Deployment:
    deployment = tx.get(Deployment, scope=scope, id=deployment_id)
    if deployment is None or deployment.state in _ENDING:
        raise DeploymentNotFound(
            f"There is no deployment {deployment_id!r} that goes on.",
            evidence=f"It is {deployment.state}." if deployment else "",
            fix="`headrace deployments` lists them.",
        )
    return deployment
