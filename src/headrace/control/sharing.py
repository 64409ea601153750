"""One deployment behind several endpoints: when a deploy binds to what runs already, and its memory is paid once.

It does where all of this is the same: model and version, machine, numbers of replicas, scale to zero, and the vendor's
own settings; and where the endpoint does not have that deployment already. A deployment that failed, or is on its way
off, is nobody's any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.resources.autoscaling import Autoscaling
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.endpoints import DeployedModel
from headrace.resources.models import ModelVersion
from headrace.resources.states import DeploymentState
from headrace.store import Transaction

_SHARED = tuple(
    state
    for state in DeploymentState
    if state not in {DeploymentState.FAILED, DeploymentState.DRAINING, DeploymentState.GONE}
)


class PoolShape(msgspec.Struct, frozen=True, kw_only=True):
    """What decides whether two deploys of one version can have one deployment.

    Attributes:
        settings: As in `DeployedModel`.
    """

    machine: MachineSpec = MachineSpec()
    min_replicas: int = 1
    max_replicas: int = 1
    scale_to_zero_after_s: float = 0.0
    autoscaling: Autoscaling | None = None
    settings: Mapping[str, Any] = {}

    def fits(self, deployment: Deployment) -> bool:
        """Whether a deployment stands at this scale, on this machine."""
        return all(
            getattr(self, name) == getattr(deployment, name) for name in self.__struct_fields__ if name != "settings"
        )


def shared_deployment(
    tx: Transaction, version: ModelVersion, shape: PoolShape, *, endpoint_id: str
) -> Deployment | None:
    """The oldest deployment that one more binding of this version may share; None: it needs one of its own."""
    of_version: dict[str, Any] = {"model_id": version.model_id, "model_version": version.version}
    for deployment in tx.list(Deployment, scope=version.scope, state=_SHARED, **of_version):
        bindings = tx.list(DeployedModel, scope=version.scope, deployment_id=deployment.id)
        here = any(one.endpoint_id == endpoint_id for one in bindings)
        same = version.spec.external is not None or shape.fits(deployment)
        if bindings and not here and same and all(one.settings == shape.settings for one in bindings):
            return deployment
    return None


def sharers(tx: Transaction, bindings: Sequence[DeployedModel]) -> dict[str, list[DeployedModel]]:
    """By deployed model, the others that have the same deployment."""
    if not bindings:
        return {}
    by_pool: dict[str, list[DeployedModel]] = defaultdict(list)
    pools = tuple({one.deployment_id for one in bindings})
    for one in tx.list(DeployedModel, scope=bindings[0].scope, deployment_id=pools):
        by_pool[one.deployment_id].append(one)
    return {one.id: [other for other in by_pool[one.deployment_id] if other.id != one.id] for one in bindings}
