"""A node's orders, built from rows: the whole of what should be on it now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from headrace.control.placement import Need, home, need_of
from headrace.control.pool import LIVE
from headrace.control.profiling import profile_order
from headrace.control.routing import served_name
from headrace.resources.assignments import NodeOrders, ReplicaOrder, StageOrder
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.models import ModelVersion
from headrace.resources.nodes import Node
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction

_KEEPING = (
    DeploymentState.STAGING,
    DeploymentState.PLACING,
    DeploymentState.STARTING,
    DeploymentState.WARMING,
    DeploymentState.READY,
)

_WANTED: Mapping[ReplicaState, Literal["sleep", "stop"]] = {
    ReplicaState.DOZING: "sleep",
    ReplicaState.ASLEEP: "sleep",
    ReplicaState.DRAINING: "stop",
}


def build_orders(tx: Transaction, node_id: str, generation: int) -> NodeOrders:
    """What this node should do: stage for deployments that wait for it, run its live replicas, stop draining ones.

    And what it is to keep: the models of deployments that run, or are about to.
    """
    node = home(tx)
    staging = tx.list(Deployment, state=DeploymentState.STAGING) if node is not None and node.id == node_id else []
    stages = {_stage(tx, deployment) for deployment in staging}
    replicas = tx.list(Replica, node_id=node_id, state=(*LIVE, ReplicaState.DRAINING))
    return NodeOrders(
        generation=generation,
        kept=tuple(sorted({_version(tx, each).fingerprint for each in tx.list(Deployment, state=_KEEPING)})),
        stages=tuple(sorted(stages, key=_order_of_stages)),
        replicas=tuple(_replica(tx, replica) for replica in replicas),
    )


def _order_of_stages(one: StageOrder) -> tuple[str, ...]:
    return one.fingerprint, one.runtime, one.dtype, one.artifact_uri, one.project


def _stage(tx: Transaction, deployment: Deployment) -> StageOrder:
    version = _version(tx, deployment)
    return StageOrder(
        artifact_uri=version.artifact_uri,
        fingerprint=version.fingerprint,
        runtime=deployment.runtime,
        dtype=version.spec.dtype,
        project=deployment.scope.project,
    )


def _replica(tx: Transaction, replica: Replica) -> ReplicaOrder:
    deployment = tx.get(Deployment, scope=replica.scope, id=replica.deployment_id)
    assert deployment is not None, "a foreign key holds it"
    version = _version(tx, deployment)
    node = tx.get(Node, id=replica.node_id)
    need = need_of(tx, node, deployment) if node is not None else Need(0)
    return ReplicaOrder(
        id=replica.id,
        deployment_id=deployment.id,
        epoch=replica.epoch,
        nonce=replica.nonce,
        wanted=_WANTED.get(replica.state, "run"),
        artifact_uri=version.artifact_uri,
        fingerprint=version.fingerprint,
        runtime=deployment.runtime,
        served_name=served_name(deployment),
        max_model_len=deployment.max_model_len,
        dtype=version.spec.dtype,
        project=deployment.scope.project,
        tensor_parallel=version.spec.tensor_parallel,
        prefix_caching=version.spec.prefix_caching,
        chat_template=version.spec.chat_template,
        tool_parser=version.spec.tool_parser,
        may_sleep=bool(deployment.scale_to_zero_after_s) and (not replica.gpus or replica.machine_bytes > 0),
        measured=deployment.autoscaled,
        profile=profile_order(tx, deployment, version, replica),
        allow_custom_code=version.spec.allow_custom_code,
        gpus=replica.gpus,
        gpu_bytes=need.gpu_bytes if replica.gpus else 0,
    )


def _version(tx: Transaction, deployment: Deployment) -> ModelVersion:
    version = tx.get(
        ModelVersion, scope=deployment.scope, model_id=deployment.model_id, version=deployment.model_version
    )
    assert version is not None, "a model in use is not deleted"
    return version
