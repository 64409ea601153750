"""What is deployed on endpoints, with what the contract tells of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain

from fastapi import Request

from headrace.api.viewing import hidden_among
from headrace.contracts.vertex.endpoints import Bound
from headrace.control.sharing import sharers
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.names import Scope
from headrace.resources.states import ReplicaState
from headrace.store import Transaction


def bound_to(tx: Transaction, request: Request, scope: Scope, endpoints: Iterable[Endpoint]) -> dict[str, list[Bound]]:
    """What is deployed, by endpoint: one question to each table, however many endpoints are asked about.

    Of what is shared, an endpoint that is not for whoever asks is not named.
    """
    ids = tuple(endpoint.id for endpoint in endpoints)
    bindings = tx.list(DeployedModel, scope=scope, endpoint_id=ids)
    pools = tuple({binding.deployment_id for binding in bindings})
    deployments = {one.id: one for one in tx.list(Deployment, scope=scope, id=pools)}
    serving = tx.columns(
        Replica, ("deployment_id",), scope=scope, deployment_id=pools, state=ReplicaState.READY, failure=None
    )
    ready = Counter(deployment_id for (deployment_id,) in serving)
    others = sharers(tx, bindings)
    hidden = hidden_among(tx, request, chain.from_iterable(others.values()), scope=scope)
    bound: dict[str, list[Bound]] = defaultdict(list)
    for binding in bindings:
        pool = deployments[binding.deployment_id]
        shared_with = tuple(
            scope.name("endpoints", other) for other in others[binding.id] if (scope, other) not in hidden
        )
        bound[binding.endpoint_id].append(Bound(binding, pool, ready[pool.id], shared_with))
    return bound
