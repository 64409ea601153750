"""A node's orders, built from rows: the whole of what should be on it now."""

from __future__ import annotations

from headrace.control.placement import home
from headrace.control.pool import LIVE
from headrace.control.routing import served_name
from headrace.resources.assignments import NodeOrders, ReplicaOrder, StageOrder
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.models import ModelVersion
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction


def build_orders(tx: Transaction, node_id: str, generation: int) -> NodeOrders:
    """What this node should do: stage for deployments that wait for it, run its live replicas, stop draining ones."""
    node = home(tx)
    staging = tx.list(Deployment, state=DeploymentState.STAGING) if node is not None and node.id == node_id else []
    stages = {_stage(tx, deployment) for deployment in staging}
    replicas = tx.list(Replica, node_id=node_id, state=(*LIVE, ReplicaState.DRAINING))
    return NodeOrders(
        generation=generation,
        stages=tuple(sorted(stages, key=lambda one: (one.fingerprint, one.runtime, one.dtype, one.artifact_uri))),
        replicas=tuple(_replica(tx, replica) for replica in replicas),
    )


def _stage(tx: Transaction, deployment: Deployment) -> StageOrder:
    version = _version(tx, deployment)
    return StageOrder(
        artifact_uri=version.artifact_uri,
        fingerprint=version.fingerprint,
        runtime=deployment.runtime,
        dtype=version.spec.dtype,
    )


def _replica(tx: Transaction, replica: Replica) -> ReplicaOrder:
    deployment = tx.get(Deployment, scope=replica.scope, id=replica.deployment_id)
    assert deployment is not None, "a foreign key holds it"
    version = _version(tx, deployment)
    return ReplicaOrder(
        id=replica.id,
        deployment_id=deployment.id,
        epoch=replica.epoch,
        nonce=replica.nonce,
        wanted="stop" if replica.state is ReplicaState.DRAINING else "run",
        artifact_uri=version.artifact_uri,
        fingerprint=version.fingerprint,
        runtime=deployment.runtime,
        served_name=served_name(deployment),
        max_model_len=deployment.max_model_len,
        dtype=version.spec.dtype,
        tensor_parallel=version.spec.tensor_parallel,
        prefix_caching=version.spec.prefix_caching,
        chat_template=version.spec.chat_template,
        tool_parser=version.spec.tool_parser,
    )


def _version(tx: Transaction, deployment: Deployment) -> ModelVersion:
    version = tx.get(
        ModelVersion, scope=deployment.scope, model_id=deployment.model_id, version=deployment.model_version
    )
    assert version is not None, "a model in use is not deleted"
    return version
