"""A pool that is larger than was asked for: which of its replicas are too many, and how they end without a loss.

A replica that is too many is taken from the gateway first. It is stopped once no request runs on it and none will
come. Who is too many is decided anew each time, from the rows: nothing has to be remembered, and a replica that fails
meanwhile has one of those in its place that were to go.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.control.draining import stop
from headrace.control.pool import LIVE, rung
from headrace.control.sight import Sight
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.states import ReplicaState
from headrace.store import Transaction


def surplus(deployment: Deployment, live: Sequence[Replica]) -> list[Replica]:
    """The replicas over the number that should run: those that serve least, and of equals the youngest.

    Of two that serve, the youngest's loss costs least: it has kept the fewest prefixes of prompts. What each has under
    way does not count: it changes with every request, and all of it ends in peace.
    """
    by_use = sorted(live, key=lambda one: (-rung(one), one.failure is not None, one.epoch))
    return by_use[deployment.wanted_replicas :]


def surplus_of(tx: Transaction, deployment: Deployment) -> list[Replica]:
    """As `surplus`, of the pool's rows."""
    return surplus(deployment, tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=LIVE))


def shrink(tx: Transaction, deployment: Deployment, sight: Sight) -> None:
    """Stop what is too many and certainly has nothing to do; only a READY replica can have."""
    for replica in surplus_of(tx, deployment):
        if replica.state is not ReplicaState.READY or sight.idle(replica.id):
            stop(tx, replica)
