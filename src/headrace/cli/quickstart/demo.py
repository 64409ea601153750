"""The demonstration model behind its endpoint: deployed once, found again afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.cli.client import Client
from headrace.cli.deploy import start_deployment
from headrace.cli.endpoints import short_id
from headrace.cli.phases import watch, watch_deployment
from headrace.cli.progress import Steps
from headrace.resources.errors import EndpointNotFound
from headrace.resources.states import ANSWERING
from headrace.weights.demo import DEMO_MODEL

ENDPOINT = "smollm2"
_HOPELESS = frozenset({"FAILED", "DRAINING", "GONE"})


def ensure_deployed(client: Client, model_dir: Path, steps: Steps) -> None:
    """Return once the endpoint answers; deploys only what is not deployed.

    Raises:
        WorkFailed: The deployment failed.
        HeadraceError: The server cannot be asked.
    """
    endpoint = _endpoint(client)
    bindings = (endpoint or {}).get("deployedModels") or []
    living = [each for each in bindings if _state(each) not in _HOPELESS]
    if any(_state(each) in ANSWERING for each in living):
        steps.say(f"Deployment: already READY at endpoint {ENDPOINT}")
    elif living:
        steps.say(f"Deployment: already there, {_state(living[-1])}")
        watch_deployment(client, short_id(living[-1]["headrace"]["deployment"]), steps, what="Deployment")
    else:
        _clear(client, endpoint, steps)
        body = {
            "artifact_uri": str(model_dir),
            "model_display_name": DEMO_MODEL,
            "endpoint_id": ENDPOINT,
            "endpoint_display_name": ENDPOINT,  # what /v1/models calls it, and clients are told
        }
        watch(client, start_deployment(client, body)["id"], steps, what="Deployment")


def _endpoint(client: Client) -> dict[str, Any] | None:
    try:
        found = client.get(f"/v1beta1/{client.login.scope}/endpoints/{ENDPOINT}")
    except EndpointNotFound:
        return None
    assert isinstance(found, dict)
    return found


def _clear(client: Client, endpoint: dict[str, Any] | None, steps: Steps) -> None:
    """A deployment that failed in an earlier run makes way."""
    if endpoint is None:
        return
    for binding in endpoint.get("deployedModels") or []:
        path = f"/v1beta1/{client.login.scope}/endpoints/{ENDPOINT}:undeployModel"
        operation = client.post(path, {"deployedModelId": binding["id"]})
        watch(client, short_id(operation["name"]), steps, what="Clearing what failed before")


def _state(binding: dict[str, Any]) -> str:
    return str((binding.get("headrace") or {}).get("state", ""))
