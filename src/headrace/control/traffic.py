"""How an endpoint's traffic is split between its deployed models: whole percents that add up to 100."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField
from headrace.resources.names import Scope
from headrace.resources.states import DeploymentState
from headrace.resources.traffic import WHOLE, share_out
from headrace.store import Transaction

__all__ = ["WHOLE", "hand_over", "set_split", "share_out", "staying", "take_all"]


def set_split(tx: Transaction, scope: Scope, endpoint_id: str, split: Mapping[str, int]) -> None:
    """Give an endpoint's deployed models these percents; those not named get none.

    Raises:
        BadField: It names one that the endpoint does not have, or does not add up to 100 (or to 0).
    """
    deployed = {one.id: one for one in tx.list(DeployedModel, scope=scope, endpoint_id=endpoint_id)}
    unknown = sorted(set(split) - set(deployed))
    if unknown:
        raise BadField(
            "The traffic split names a model that is not deployed here.", evidence=f"Unknown: {', '.join(unknown)}."
        )
    if any(share < 0 for share in split.values()) or sum(split.values()) not in {0, WHOLE}:
        raise BadField("A traffic split must add up to 100.", evidence=f"It adds up to {sum(split.values())}.")
    for one in deployed.values():
        if one.traffic != split.get(one.id, 0):
            tx.update(msgspec.structs.replace(one, traffic=split.get(one.id, 0)))


def take_all(tx: Transaction, deployed: DeployedModel) -> None:
    """All of the endpoint's traffic to this one."""
    set_split(tx, deployed.scope, deployed.endpoint_id, {deployed.id: WHOLE})


def hand_over(tx: Transaction, deployed: DeployedModel) -> DeployedModel:
    """Its share to the endpoint's others, in proportion; returns the row as it is then."""
    there = staying(tx, deployed.scope, deployed.endpoint_id)
    others = {one.id: one.traffic for one in there if one.id != deployed.id}
    if deployed.traffic:
        set_split(tx, deployed.scope, deployed.endpoint_id, {**share_out(others), deployed.id: 0})
    current = tx.get(DeployedModel, scope=deployed.scope, id=deployed.id)
    assert current is not None, "a split deletes nothing"
    return current


def staying(tx: Transaction, scope: Scope, endpoint_id: str) -> list[DeployedModel]:
    """What is deployed on an endpoint and is not on its way off."""
    return [one for one in tx.list(DeployedModel, scope=scope, endpoint_id=endpoint_id) if _stays(tx, one)]


def _stays(tx: Transaction, deployed: DeployedModel) -> bool:
    deployment = tx.get(Deployment, scope=deployed.scope, id=deployed.deployment_id)
    return deployment is not None and deployment.state not in {DeploymentState.DRAINING, DeploymentState.GONE}
