"""A model's own code from the command to the engine: allowed by an operator, told in every place, and answered by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server_process import ServerProcess

ENGINE_TESTS = Path(__file__).parent.parent / "engine"


@pytest.fixture
def river(tmp_path: Path) -> Path:
    """A tiny model that only the code in its folder knows; it leaves ``was_run`` beside it."""
    python = os.environ.get("HEADRACE_TEST_ENGINE_PYTHON")
    assert python, "HEADRACE_TEST_ENGINE_PYTHON is not set: run the tests through `make test`, or see CONTRIBUTING.md"
    subprocess.run([python, str(ENGINE_TESTS / "tiny_models.py"), str(tmp_path), "llama"], check=True)
    make = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from own_code_folder import own_code_folder;"
    make += "own_code_folder(*map(pathlib.Path, sys.argv[2:]))"
    folders = [str(tmp_path / name) for name in ("llama", "river", "was_run")]
    subprocess.run([sys.executable, "-c", make, str(ENGINE_TESTS), *folders], check=True)
    return tmp_path / "river"


def the_deployment(server: ServerProcess) -> dict[str, Any]:
    """The newest one."""
    with server.client() as client:
        found = client.get("/headrace/v1/deployments", params={"all": "true"}).json()["deployments"]
        newest = max(found, key=lambda each: each["created_at"])
        deployment: dict[str, Any] = client.get(f"/headrace/v1/deployments/{newest['id']}").json()
    return deployment


def test_own_code_is_served_where_an_operator_allows_it(shared_server: ServerProcess, river: Path) -> None:
    """Refused without the flag, with the flag as the fix; with it, it answers, and status and timeline say so."""
    refused = shared_server.cli("deploy", str(river), "--name", "river", check=False)
    assert refused.returncode == 1
    assert "--allow-custom-code" in refused.stderr
    assert not (river.parent / "was_run").exists()
    shared_server.cli("deploy", str(river), "--name", "river", "--allow-custom-code", "--max-model-len", "128")
    assert (river.parent / "was_run").exists()
    deployment = the_deployment(shared_server)
    assert (deployment["runtime"], deployment["spec"]["allow_custom_code"]) == ("transformers", True)
    told = " ".join(move["detail"] for move in deployment["timeline"])
    assert "This model's own code runs: configuration_river.py, modeling_river.py." in told
    assert "river runs code out of its model's folder" in shared_server.cli("status").stdout
    with shared_server.client() as client:
        said = client.post("/v1/completions", json={"model": "river", "prompt": "Hello", "max_tokens": 8})
    assert said.status_code == 200, said.text
    assert said.json()["usage"]["completion_tokens"] > 0
    shared_server.cli("undeploy", "river", "--yes")
