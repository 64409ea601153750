"""Serving endpoints as Databricks' clients read them: https://docs.databricks.com/api/workspace/servingendpoints/get."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.contracts.databricks.kept import kept_of
from headrace.contracts.databricks.state import Failed, Served, ServingState
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import Failure
from headrace.resources.states import ANSWERING, DeploymentState


class EntityView(msgspec.Struct, frozen=True, kw_only=True):
    """One served entity as it stands.

    Attributes:
        state: Of its deployment; so what follows.
        was_ready: Whether it ever answered.
        detail: What it is about, for a person.
        share: Percent of the endpoint's requests.
    """

    asked: Served
    deployed: DeployedModel
    state: DeploymentState
    failure: Failure | None = None
    was_ready: bool = False
    detail: str = ""
    share: int = 0

    @property
    def answers(self) -> bool:
        """Whether a request gets an answer, at once or once it is awake."""
        return self.state in ANSWERING


class ServingView(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as it stands.

    Attributes:
        served: What holds; of an endpoint that never served, what is to hold.
        pending: What is to hold once all of it answers; empty where no update is under way.
        embeds: Whether it makes vectors of texts.
    """

    endpoint: Endpoint
    state: ServingState
    served: tuple[EntityView, ...] = ()
    pending: tuple[EntityView, ...] = ()
    embeds: bool = False


def serving_id(endpoint: Endpoint) -> str:
    """What Databricks' permissions know an endpoint by: 32 hexadecimal digits, its own from its making on."""
    return hashlib.sha256(f"{endpoint.name}@{endpoint.created_at!r}".encode()).hexdigest()[:32]


def endpoint_json(view: ServingView, *, permission: str, detailed: bool = True) -> dict[str, Any]:
    """An endpoint's answer.

    Args:
        view: What is to be told.
        permission: What the caller may do with it: ``CAN_MANAGE``, ``CAN_QUERY`` or ``CAN_VIEW``.
        detailed: Whether the state of each entity is told, as by get; else as in a list.
    """
    endpoint, state = view.endpoint, view.state
    provisioned = any(one.deployed.provision is not None for one in (*view.served, *view.pending))
    wire: dict[str, Any] = {
        "name": endpoint.display_name or endpoint.id,
        "id": serving_id(endpoint),
        "creator": state.creator,
        "creation_timestamp": _ms(endpoint.created_at),
        "last_updated_timestamp": _ms(endpoint.updated_at),
        "permission_level": permission,
        "route_optimized": False,
        "task": "llm/v1/embeddings" if view.embeds else "llm/v1/chat",
        "endpoint_type": "FOUNDATION_MODEL_API" if provisioned else "CUSTOM_MODEL",
        "tags": kept_of(endpoint.kept).get("tags") or [],
        "description": endpoint.description,
        "config": _config(view.served, state, state.config_version),
        "state": _state(view),
    }
    wire |= {name: told for name, told in kept_of(endpoint.kept).items() if name == "ai_gateway"}
    if detailed and state.pending is not None:
        pending = _config(view.pending, state, state.config_version + 1)
        wire["pending_config"] = pending | {"start_time": _ms(state.pending.started_at)}
    elif detailed and state.failed is not None:
        wire["pending_config"] = _failed_config(state.failed, state)
    return wire


def _failed_config(failed: Failed, state: ServingState) -> dict[str, Any]:
    """The config that could not come to hold, with the reason at each of its entities."""
    told = {"deployment": "DEPLOYMENT_FAILED", "deployment_state_message": failed.message}
    entities = [msgspec.to_builtins(one) | {"state": told} for one in failed.config.entities]
    routes = [
        {"served_model_name": name, "served_entity_name": name, "traffic_percentage": share}
        for name, share in failed.config.routes.items()
    ]
    return {
        "served_entities": entities,
        "traffic_config": {"routes": routes},
        "config_version": state.config_version + 1,
        "start_time": _ms(failed.at),
    }


def _state(view: ServingView) -> dict[str, Any]:
    routed = [one for one in view.served if one.share]
    ready = bool(routed) and any(one.answers for one in routed)
    if view.state.pending is not None:
        update = "IN_PROGRESS"
    elif view.state.failed is not None:
        update = "UPDATE_FAILED"
    else:
        update = "NOT_UPDATING"
    return {"ready": "READY" if ready else "NOT_READY", "config_update": update}


def _config(entities: Sequence[EntityView], state: ServingState, version: int) -> dict[str, Any]:
    told = [_entity(one, state) for one in entities]
    models = [one | {"model_name": one["entity_name"], "model_version": one["entity_version"]} for one in told]
    routes = [
        {
            "served_model_name": one.asked.entity.name,
            "served_entity_name": one.asked.entity.name,
            "traffic_percentage": one.share,
        }
        for one in entities
    ]
    return {
        "served_entities": told,
        "served_models": models,
        "traffic_config": {"routes": routes},
        "config_version": version,
    }


def _entity(view: EntityView, state: ServingState) -> dict[str, Any]:
    entity: dict[str, Any] = msgspec.to_builtins(view.asked.entity)
    deployment, message = _deployment(view)
    return entity | {
        "name": view.asked.entity.name,
        "entity_version": view.asked.entity.entity_version,
        "creator": state.creator,
        "creation_timestamp": _ms(view.asked.at),
        "state": {"deployment": deployment, "deployment_state_message": message},
    }


def _deployment(view: EntityView) -> tuple[str, str]:
    """Its state in Databricks' words, and what there is to say of it."""
    if view.answers:
        return "DEPLOYMENT_READY", view.detail
    failure = view.failure
    why = f"{failure.code}: {failure.message} {failure.evidence} {failure.fix}".strip() if failure is not None else ""
    if view.state is DeploymentState.FAILED:
        return "DEPLOYMENT_FAILED", why
    state = "" if view.detail.startswith(f"It is {view.state}.") else f"{view.state}."
    told = " ".join(part for part in (state, view.detail, why) if part)
    return ("DEPLOYMENT_RECOVERING" if view.was_ready else "DEPLOYMENT_CREATING"), told


def _ms(at: float) -> int:
    return int(at * 1000)
