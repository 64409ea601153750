"""The list of models as OpenAI's API (and vLLM's extension of it) shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.resources.snapshot import DeployedRoute, EndpointRoute


def endpoint_card(endpoint: EndpointRoute, model_id: str) -> dict[str, Any]:
    """An endpoint as one entry of ``/v1/models``.

    Args:
        endpoint: What the name leads to.
        model_id: The name to show: one that ``model`` takes.
    """
    root = {"root": endpoint.scope.name("endpoints", endpoint.id)}
    if not endpoint.deployed:
        return {"id": model_id, "object": "model", "created": 0, "owned_by": "headrace"} | root
    return deployed_card(max(endpoint.deployed, key=lambda deployed: deployed.traffic), model_id) | root


def deployed_card(deployed: DeployedRoute, model_id: str) -> dict[str, Any]:
    """A deployed model as one entry of an endpoint's ``/models``."""
    return {
        "id": model_id,
        "object": "model",
        "created": int(deployed.created_at),
        "owned_by": "headrace",
        "root": deployed.model,
        "max_model_len": deployed.max_model_len or None,  # an external server may not tell
    }


def model_list(cards: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """OpenAI's list object."""
    return {"object": "list", "data": list(cards)}
