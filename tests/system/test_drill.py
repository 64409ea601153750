"""`headrace drill` against a real server: nothing is lost while it is looked after, and all is left as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server_process import ServerProcess


def _state(server: ServerProcess) -> dict[str, Any]:
    """What a drill is to leave alone."""
    with server.client() as client:
        endpoints = client.get("/headrace/v1/endpoints").json()["endpoints"]
        deployments = client.get("/headrace/v1/deployments").json()["deployments"]
        models = client.get("/headrace/v1/models").json()["models"]
    return {
        "traffic": {bound["id"]: bound["traffic"] for each in endpoints for bound in each["deployed_models"]},
        "replicas": {each["id"]: (each["min_replicas"], each["max_replicas"]) for each in deployments},
        "states": {each["state"] for each in deployments},
        "models": {each["id"] for each in models},
    }


def test_nothing_is_lost_by_any_fault(server: ServerProcess, demo_model: Path) -> None:
    """Each of the eight happens under load; no request is lost, and afterwards everything is as it was."""
    endpoint = server.deployed(demo_model)
    before = _state(server)
    command = ("drill", endpoint, "--seconds", "3", "--rate", "2", "--max-tokens", "16", "--deadline", "120")
    drilled = server.cli(
        *(*command, "--project", "my-proj", "--data-dir", str(server.data_dir), "--yes", "--json"),
        check=False,
        timeout_s=900,
    )
    told = json.loads(drilled.stdout) if drilled.stdout else {}
    assert drilled.returncode == 0, f"{json.dumps(told, indent=1)}\n{drilled.stderr}\n{server.output}"
    faults = {each["fault"]: each for each in told["faults"]}
    assert len(faults) == 8
    assert all(each["done"] and not each["not_run"] and not each["failed"] for each in faults.values()), faults
    assert all(each["tally"]["streams"] and each["tally"]["requests"] for each in faults.values())
    assert told["total"]["lost"] == 0
    assert _state(server) == before
