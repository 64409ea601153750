"""A serving endpoint as it stands, read from rows: what it serves, how far that is, and what it is on its way to."""

from __future__ import annotations

from headrace.contracts.databricks.endpoints import EntityView, ServingView
from headrace.contracts.databricks.served import ServedEntity
from headrace.contracts.databricks.state import Served, state_in
from headrace.control.autoscaling.pending import pending_text
from headrace.control.doubt import doubt
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.models import Model
from headrace.resources.states import DeploymentState
from headrace.store import Transaction

__all__ = ["ServingView", "view_of"]

_ENDING = frozenset({DeploymentState.DRAINING, DeploymentState.GONE})


def view_of(tx: Transaction, endpoint: Endpoint) -> ServingView:
    """All there is to tell of it. An endpoint that another vendor's client made is told of in the same way."""
    state = state_in(endpoint.kept)
    pending = state.pending
    coming = {} if pending is None else {bound: name for name, bound in pending.bound.items()}
    entities = {} if pending is None else {one.name: one for one in pending.config.entities}
    served, awaited, embeds = [], [], False
    for deployed in tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id):
        deployment = tx.get(Deployment, scope=deployed.scope, id=deployed.deployment_id)
        if deployment is None or deployment.state in _ENDING:
            continue
        embeds = embeds or _embeds(tx, deployment)
        asked = state.served.get(deployed.id)
        if deployed.id in coming and pending is not None:
            wanted = Served(entity=entities[coming[deployed.id]], at=pending.started_at)
            share = pending.config.routes.get(coming[deployed.id], 0)
            awaited.append(_entity(tx, deployed, deployment, wanted, share))
        if asked is not None or deployed.id not in coming:
            asked = asked or _elsewhere(tx, deployed, deployment)
            served.append(_entity(tx, deployed, deployment, asked, deployed.traffic))
    return ServingView(
        endpoint=endpoint,
        state=state,
        served=tuple(served or awaited),
        pending=tuple(awaited),
        embeds=embeds,
    )


def _entity(tx: Transaction, deployed: DeployedModel, deployment: Deployment, asked: Served, share: int) -> EntityView:
    return EntityView(
        asked=asked,
        deployed=deployed,
        state=deployment.state,
        failure=deployment.failure,
        was_ready=tx.timelines.was("deployment", deployment.id, DeploymentState.READY),
        detail=_told(tx, deployment),
        share=share,
    )


def _told(tx: Transaction, deployment: Deployment) -> str:
    """What it is about, for a person; empty where it is as it should be."""
    if deployment.state is DeploymentState.ASLEEP:
        return "Scaled to zero: the next request wakes it."
    return pending_text(tx, deployment) or doubt(tx, deployment)


def _elsewhere(tx: Transaction, deployed: DeployedModel, deployment: Deployment) -> Served:
    """What another vendor's client asked for, as Databricks would have it."""
    model = tx.get(Model, scope=deployed.scope, id=deployment.model_id)
    sold = deployed.provision
    entity = ServedEntity(
        name=deployed.display_name or deployed.id,
        entity_name=model.display_name if model is not None else deployment.model_id,
        entity_version=deployment.model_version,
        min_provisioned_throughput=sold.min_tokens_per_s if sold else None,
        max_provisioned_throughput=sold.max_tokens_per_s if sold else None,
        scale_to_zero_enabled=bool(deployment.scale_to_zero_after_s),
    )
    return Served(entity=entity, at=deployed.created_at)


def _embeds(tx: Transaction, deployment: Deployment) -> bool:
    """Whether its engines make vectors, as their first answer showed."""
    replicas = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, limit=1)
    return any(one.warmup is not None and not one.warmup.output_tokens for one in replicas)
