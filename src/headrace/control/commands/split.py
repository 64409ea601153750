"""How an endpoint's requests are shared out among its deployed models, as a user says it."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.control.commands.found import find_living_endpoint
from headrace.control.rollouts.life import require_no_rollout
from headrace.control.splits import drop_older_splits
from headrace.control.traffic import set_split
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
    find_living_endpoint(tx, scope, endpoint_id)
    require_no_rollout(tx, scope, endpoint_id)
    drop_older_splits(tx, scope, endpoint_id)
    set_split(tx, scope, endpoint_id, split)
