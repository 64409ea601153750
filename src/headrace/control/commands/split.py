"""How an endpoint's requests are shared out among its deployed models, as a user says it."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.control.rollouts.life import require_no_rollout
from headrace.control.splits import drop_older_splits
from headrace.control.traffic import set_split
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import EndpointNotFound
from headrace.resources.names import Scope
from headrace.store import Transaction


def split_traffic(tx: Transaction, scope: Scope, endpoint_id: str, split: Mapping[str, int]) -> None:
    """Give an endpoint's deployed models these percents of its requests from now on; those not named get none.

    Requests under way stay where they are.

    Raises:
        EndpointNotFound: There is no such endpoint, or it is being deleted.
        RolloutRunning: A rollout decides on its traffic.
        BadField: The split is none: it names a stranger, or does not add up to 100.
    """
    endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id)
    if endpoint is None or endpoint.deleting:
        raise EndpointNotFound(f"There is no endpoint {endpoint_id!r} that goes on.")
    require_no_rollout(tx, scope, endpoint_id)
    drop_older_splits(tx, scope, endpoint_id)
    set_split(tx, scope, endpoint_id, split)
