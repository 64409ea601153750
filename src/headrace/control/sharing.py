"""One deployment behind several endpoints: when a deploy binds to what runs already, and its memory is paid once.

It does where all of this is the same: model and version, machine, numbers of replicas, scale to zero, and the vendor's
own settings; and where the endpoint does not have that deployment already. A deployment that failed, or is on its way
off, is nobody's any more. Whoever shares a deployment sees it and may change its scale: so endpoints share only where
their access lists are the same when it is deployed, or none has one. An external server is shared by all.

Where a throughput is sold the numbers of replicas and the scale to zero follow from it, and from those of all who
share: so they need not be the same, and there is one replica more only where the guarantees fill another one. They
must fit together on the machine as far as its room is known. What has a throughput shares with nothing that has none:
of that nobody knows how many replicas it takes, so what runs for it could not be told from what was sold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.control.access_lists import granted_of
from headrace.control.guarantees import guarantees_fit
from headrace.resources.autoscaling import Autoscaling
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.models import ModelVersion
from headrace.resources.profiles import Provision
from headrace.resources.states import DeploymentState
from headrace.store import Transaction

_SHARED = tuple(
    state
    for state in DeploymentState
    if state not in {DeploymentState.FAILED, DeploymentState.DRAINING, DeploymentState.GONE}
)


_COMPARED = ("machine", "min_replicas", "max_replicas", "initial_replicas", "scale_to_zero_after_s", "autoscaling")
_OF_PROVISIONED = ("machine", "autoscaling")


class PoolShape(msgspec.Struct, frozen=True, kw_only=True):
    """What decides whether two deploys of one version can have one deployment.

    Attributes:
        settings: As in `DeployedModel`.
        provision: The throughput that is sold; then the numbers of replicas, and scale to zero, are not compared.
    """

    machine: MachineSpec = MachineSpec()
    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int = 0
    scale_to_zero_after_s: float = 0.0
    autoscaling: Autoscaling | None = None
    settings: Mapping[str, Any] = {}
    provision: Provision | None = None

    def fits(self, deployment: Deployment) -> bool:
        """Whether a deployment stands at this scale, on this machine."""
        compared = _OF_PROVISIONED if self.provision is not None else _COMPARED
        return all(getattr(self, name) == getattr(deployment, name) for name in compared)

    def joins(self, tx: Transaction, deployment: Deployment, bindings: Sequence[DeployedModel]) -> bool:
        """Whether one more of it may be bound to a deployment beside these."""
        sold = self.provision is not None
        if any(one.settings != self.settings or (one.provision is not None) != sold for one in bindings):
            return False
        return self.provision is None or guarantees_fit(tx, deployment, self.provision)


def shared_deployment(
    tx: Transaction, version: ModelVersion, shape: PoolShape, endpoint: Endpoint
) -> Deployment | None:
    """The oldest deployment that one more binding of this version may share; None: it needs one of its own."""
    of_version: dict[str, Any] = {"model_id": version.model_id, "model_version": version.version}
    for deployment in tx.list(Deployment, scope=version.scope, state=_SHARED, **of_version):
        bindings = tx.list(DeployedModel, scope=version.scope, deployment_id=deployment.id)
        here = any(one.endpoint_id == endpoint.id for one in bindings)
        same = version.spec.external is not None or (shape.fits(deployment) and _same_lists(tx, endpoint, bindings))
        if bindings and not here and same and shape.joins(tx, deployment, bindings):
            return deployment
    return None


def _same_lists(tx: Transaction, endpoint: Endpoint, bindings: Sequence[DeployedModel]) -> bool:
    others = tx.list(Endpoint, scope=endpoint.scope, id=tuple(one.endpoint_id for one in bindings))
    return all(_list_of(other) == _list_of(endpoint) for other in others)


def _list_of(endpoint: Endpoint) -> frozenset[tuple[str, str]] | None:
    granted = granted_of(endpoint)
    return None if granted is None else frozenset((one.key_id, one.level) for one in granted)


def sharers(tx: Transaction, bindings: Sequence[DeployedModel]) -> dict[str, list[str]]:
    """By deployed model, the ids of the other endpoints that have the same deployment."""
    if not bindings:
        return {}
    pools = tuple({one.deployment_id for one in bindings})
    names = ("created_at", "id", "endpoint_id", "deployment_id")
    by_pool: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for _, binding_id, endpoint_id, pool in sorted(
        tx.columns(DeployedModel, names, scope=bindings[0].scope, deployment_id=pools)
    ):
        by_pool[pool].append((binding_id, endpoint_id))
    return {
        one.id: [endpoint_id for binding_id, endpoint_id in by_pool[one.deployment_id] if binding_id != one.id]
        for one in bindings
    }
