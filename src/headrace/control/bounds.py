"""Between how many replicas a deployment runs, and what becomes of those that run when that is changed."""

from __future__ import annotations

import msgspec

from headrace.resources.autoscaling import Scaling
from headrace.resources.deployments import Deployment
from headrace.store import Transaction

MOST_REPLICAS = 1000
"""Of one deployment: far more than one machine carries, and few enough that a slip of the hand is found."""


def set_bounds(tx: Transaction, deployment: Deployment, least: int, most: int, *, why: str = "") -> Deployment:
    """Have it run so many replicas from now on; those that run stay where they may.

    Args:
        tx: An open transaction.
        deployment: As read.
        least: The fewest that run while it does not sleep.
        most: The most.
        why: A sentence for the timeline besides.
    """
    if (least, most) == (deployment.min_replicas, deployment.max_replicas):
        return deployment
    changed = msgspec.structs.replace(deployment, min_replicas=least, max_replicas=most)
    if not changed.autoscaled:
        changed = msgspec.structs.replace(changed, scaling=None)
    elif changed.scaling is None:  # those that run stay, within the bounds, until there is something to go by
        changed = msgspec.structs.replace(changed, scaling=Scaling(replicas=deployment.wanted_replicas))
    told = f"Replicas from now on: {_range(changed)}; until now {_range(deployment)}. {why}".strip()
    return tx.move(
        deployment, deployment.state, detail=told, min_replicas=least, max_replicas=most, scaling=changed.scaling
    )


def _range(deployment: Deployment) -> str:
    if not deployment.autoscaled:
        return str(deployment.min_replicas)
    return f"{deployment.min_replicas} to {deployment.max_replicas}"
