"""Endpoints through Vertex AI's own SDK, unmodified, over REST and TLS: both generations of it, real models behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server_process import LOCATION, PROJECT, ServerProcess, eventually, running_server

PROGRAM = Path(__file__).with_name("vertex_endpoints.py")
MODEL = "river"


@pytest.fixture(scope="module")
def secure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a TLS port: the SDK calls dedicated endpoints by https."""
    with running_server(tmp_path_factory.mktemp("endpoints") / "data", "--tls-port", "0") as server:
        yield server


@pytest.fixture(scope="module")
def model(secure_server: ServerProcess, demo_model: Path) -> str:
    """A model with two versions, none of them deployed: what was to deploy them is undone at once."""
    for _ in range(2):
        secure_server.deploy(demo_model, modelConfig={"modelUserId": MODEL}, endpointConfig={"endpointUserId": "seed"})
    with secure_server.client() as client:
        path = f"/v1/projects/{PROJECT}/locations/{LOCATION}/endpoints/seed"
        operation = client.delete(path, params={"force": "true"}).json()
    secure_server.await_operation(operation["name"])
    return MODEL


def deployments(server: ServerProcess) -> list[dict[str, Any]]:
    """Those that are not gone."""
    with server.client() as client:
        found: list[dict[str, Any]] = client.get("/headrace/v1/deployments").json()["deployments"]
    return found


@pytest.mark.parametrize("generation", ["2", "1"])
def test_the_sdk_runs_an_endpoints_whole_life(
    secure_server: ServerProcess, model: str, tmp_path: Path, generation: str
) -> None:
    """Create, deploy twice with shares, share a deployment, update, list, mutate, undeploy, delete: as at Google's."""
    python = os.environ.get(f"HEADRACE_TEST_VERTEX_SDK_{generation}_PYTHON")
    assert python, "run the tests through `make test`, or see CONTRIBUTING.md"
    authority = tmp_path / "ca.pem"
    secure_server.cli("ca", "export", str(authority), "--data-dir", str(secure_server.data_dir))
    environment = os.environ | {"REQUESTS_CA_BUNDLE": str(authority), "NO_PROXY": "*", "no_proxy": "*"}
    command = [python, str(PROGRAM), secure_server.login["tls_url"], secure_server.key, PROJECT, model]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{secure_server.output}"
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "names": ["e2", {"a": "b"}, "For tests.", "custom-id"],
        "taken": "Conflict",
        "first answers": True,
        "split": [80, 20],
        "answers": [8, 2],
        "versions": ["1", "2"],
        "machine": "n1-standard-4",
        "shared answers": 2,
        "all to the second": True,
        "listed": [["renamed", {"c": "d"}]],
        "not 100": "BadRequest",
        "read-only": "BadRequest",
        "in use": "BadRequest",
        "mutated": True,
        "left": True,
        "emptied": [[], {}],
        "other goes on": 2,
        "gone": "NotFound",
    }
    assert eventually(lambda: not deployments(secure_server))
    with secure_server.client() as client:
        made = client.get("/headrace/v1/deployments", params={"all": "true"}).json()["deployments"]
    newest = sorted(made, key=lambda one: -one["created_at"])[:2]
    assert [one["model_version"] for one in newest] == ["2", "1"], "three deploys, two deployments"
