"""What keeps a pool smaller than it should be, told where its scale is shown."""

from __future__ import annotations

import msgspec

from headrace.resources.deployments import Deployment
from headrace.store import Transaction


def tell_pending(tx: Transaction, deployment: Deployment, told: str) -> Deployment:
    """Write down what replicas wait for; empty: nothing. One whose number is fixed has only its timeline for that."""
    scaling = deployment.scaling
    if scaling is None or scaling.pending == told:
        return deployment
    return tx.update(msgspec.structs.replace(deployment, scaling=msgspec.structs.replace(scaling, pending=told)))
