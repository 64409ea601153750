"""Vertex AI's model registry through the vendor's unmodified SDK, its newest and the last of the generation before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vendor_client import run_client

from server_process import LOCATION, PROJECT, ServerProcess

SCRIPT = Path(__file__).with_name("sdk_registry.py")
RIVER = f"projects/{PROJECT}/locations/{LOCATION}/models/river_1"


@pytest.fixture(scope="module", params=["HEADRACE_TEST_VERTEX_SDK_2_PYTHON", "HEADRACE_TEST_VERTEX_SDK_1_PYTHON"])
def told(request: pytest.FixtureRequest, shared_server: ServerProcess, demo_model: Path) -> Any:
    """What the SDK saw of the whole life of a model."""
    operation = shared_server.deploy(demo_model, modelConfig={"modelUserId": "in-use"})
    seen = run_client(request.param, SCRIPT, shared_server.url, shared_server.key, PROJECT, LOCATION, "in-use")
    with shared_server.client() as client:
        assert client.post(f"/v1/{operation}:cancel").status_code == 200
    return seen


def test_upload(told: Any) -> None:
    """An upload is an operation that the SDK parses; the version it made has everything that was sent."""
    assert told["name"] == RIVER
    assert told["version"][0] == "1"
    assert (told["aliases"], told["description"], told["labels"]) == (["default", "v-one"], "It flows.", {"k": "v"})
    container = told["container"]
    assert container["command"] == ["python", "-m", "vllm.entrypoints.api_server"]
    assert (container["deploymentTimeout"], container["sharedMemorySizeMb"]) == ("600s", "4096")
    assert container["startupProbe"]["exec"] == {"command": ["cat", "/x"]}
    assert (container["ports"], container["grpcPorts"]) == ([{"containerPort": 8080}], [{"containerPort": 9000}])
    assert told["probes_kept"]


def test_aliases(told: Any) -> None:
    """Aliases move from version to version, and the default one is never gone."""
    assert told["uploaded"] == {"1": ["default", "v-one"], "2": []}
    assert told["moved"] == {"1": ["v-one"], "2": ["default", "prod"]}
    assert (told["by_alias"], told["by_nothing"]) == ("2", "2")
    assert told["removed"] == {"1": ["v-one"], "2": ["default"]}
    assert (told["no_default"]["type"], told["no_default"]["reason"]) == ("BadRequest", "STILL_IN_USE")
    assert (told["no_version"]["type"], told["no_version"]["reason"]) == ("NotFound", "MODEL_NOT_FOUND")


def test_update(told: Any) -> None:
    """Model and version are changed apart from each other; a read-only field is refused by its name."""
    assert told["updated"] == ["stream", "It flowed.", {"k": "w"}]
    assert told["version"][1] == "second"
    assert told["version_labels"] == [{"k": "w", "of": "two"}, {"k": "w"}]
    assert (told["read_only"]["type"], told["read_only"]["reason"]) == ("BadRequest", "BAD_FIELD")
    assert "'artifactUri', which cannot be changed" in told["read_only"]["message"]


def test_list(told: Any) -> None:
    """Lists are filtered and sorted by the server."""
    assert told["filtered"] == ["river_1"]
    assert told["labelled"] == told["ordered"] == ["delta", "lake"]


def test_delete(told: Any) -> None:
    """What is deployed is not deleted, nor the default or the last version; the rest is."""
    assert (told["in_use"]["type"], told["in_use"]["reason"]) == ("BadRequest", "STILL_IN_USE")
    assert "endpoints/" in told["in_use"]["message"]
    assert told["default_version"]["reason"] == told["last_version"]["reason"] == "STILL_IN_USE"
    assert told["left"] == {"2": ["default"]}
    assert told["gone"]["type"] == "NotFound"
