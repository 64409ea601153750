"""Another scale for a deployed model that goes on serving: nothing of it is restarted, and no memory is taken twice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.control.commands.scale import resize, scale_to_zero
from headrace.control.serving.scale import Scale
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.operations import Operation
from headrace.store import Transaction

CONTRACT = "databricks/2.0"


def rescale(
    tx: Transaction, deployed: DeployedModel, scale: Scale, *, now: float, data_dir: Path | None = None
) -> Operation | None:
    """Bring a deployed model to a scale of the kind that it has: a throughput, or numbers of replicas.

    Args:
        tx: An open transaction.
        deployed: The deployed model, whose deployment goes on.
        scale: What it is to have.
        now: Unix seconds.
        data_dir: Where an operator's own machine types may be.

    Returns:
        What is to be waited for; None: it is so at once.

    Raises:
        BadField: There cannot be so many replicas.
    """
    del now, data_dir
    deployment = tx.get(Deployment, scope=deployed.scope, id=deployed.deployment_id)
    assert deployment is not None, "a foreign key holds it"
    if scale.provision is not None:
        if scale.provision != deployed.provision:
            tx.update(msgspec.structs.replace(deployed, provision=scale.provision))
        return None
    resize(tx, deployed.scope, deployment.id, least=scale.min_replicas, most=scale.max_replicas)
    scale_to_zero(tx, deployed.scope, deployment.id, scale.idle_s)
    return None
