"""Databricks' SDK, and the script of its page on provisioned throughput, unmodified, over plain HTTP with a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from databricks_models import CLIENT, MODEL, environment, register
from vendor_client import run_client

from server_process import ServerProcess

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def registered(shared_server: ServerProcess, demo_model: Path) -> ServerProcess:
    """A server that knows the demo model by a name of three levels, in three versions as the document's script asks."""
    register(shared_server, demo_model, versions=3)
    return shared_server


@pytest.fixture(scope="module")
def told(registered: ServerProcess) -> dict[str, Any]:
    """What the SDK's user was told."""
    program = HERE / "programs" / "databricks_serving.py"
    answer: dict[str, Any] = run_client(CLIENT, program, MODEL, env=environment(registered))
    return answer


def test_create_wait_get_list_and_delete(told: dict[str, Any]) -> None:
    """The SDK's waiter ends with an endpoint that is READY, which is listed until it is deleted."""
    assert told["made"] == ["sdk1", "READY", "NOT_UPDATING", "team", 32]
    assert told["entity"] == [["a", "1", "DEPLOYMENT_READY"]]
    assert "sdk1" in told["listed"]
    assert "sdk1" not in told["left"]


@pytest.mark.parametrize("way", ["chat", "completion", "records", "stream", "openai", "openai_completion"])
def test_query(told: dict[str, Any], way: str) -> None:
    """Chats, completions and rows of a table, whole and streamed, by the SDK and by OpenAI's client, are answered."""
    assert "Tokyo" in told[way]
    assert told["stream_end"] == "[DONE]"


def test_tables(told: dict[str, Any]) -> None:
    """One prediction for each row: the text that the model writes."""
    [split] = told["split"]
    assert "Tokyo" in split
    for way in ("inputs", "instances"):
        [prediction] = told[way]
        assert isinstance(prediction, str)
        assert prediction


def test_update_config(told: dict[str, Any]) -> None:
    """The waiter of an update ends with the new traffic between two served entities."""
    assert told["updated"] == {"a": 80, "b": 20}


def test_errors_are_the_sdks_own(told: dict[str, Any]) -> None:
    """Mistakes raise the SDK's exceptions of their names, with our sentence and code."""
    missing, taken, unknown, empty = told["errors"]
    assert missing[0] == "ResourceDoesNotExist"
    assert "ENDPOINT_NOT_FOUND" in missing[1]
    assert taken[0] == "ResourceAlreadyExists"
    assert unknown[0] == "ResourceDoesNotExist"
    assert empty[0] == "InvalidParameterValue"
    assert "messages" in empty[1]


def test_the_documents_script(registered: ServerProcess) -> None:
    """The page's Python with its placeholders filled makes an endpoint of two to three chunks that becomes READY.

    Besides, `.json()` and `raise` are put where Python wants them: the page was printed without its indentation.
    """
    script = (HERE / "documents" / "provisioned_throughput.py.txt").read_text()
    script = script.replace("<YOUR-API-URL>", registered.url).replace("<YOUR-API-TOKEN>", registered.key)
    script = script.replace("headers=headers)\n.json()", "headers=headers).json()")
    script = script.replace('\nraise ValueError("Model is', '\n    raise ValueError("Model is')
    script = script.replace("print(json.dumps(response.json(), indent=4))", "print(json.dumps(response.json()))")
    assert "<YOUR" not in script
    made = run_client(CLIENT, script)
    [entity] = made["pending_config"]["served_entities"]
    with registered.client() as client:
        info = client.get(f"/api/2.0/serving-endpoints/get-model-optimization-info/{MODEL}/3").json()
    chunk = info["throughput_chunk_size"]
    assert info["model_type"] == "llama"
    assert (entity["min_provisioned_throughput"], entity["max_provisioned_throughput"]) == (2 * chunk, 3 * chunk)
    name = made["name"]
    waits = (
        "import json, sys\nfrom databricks.sdk import WorkspaceClient\n"
        "found = WorkspaceClient().serving_endpoints.wait_get_serving_endpoint_not_updating(sys.argv[1])\n"
        "print(json.dumps([found.state.ready.value, found.state.config_update.value]))"
    )
    assert run_client(CLIENT, waits, name, env=environment(registered)) == ["READY", "NOT_UPDATING"]
    with registered.client() as client:
        asked = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}], "max_tokens": 16}
        answer = client.post(f"/serving-endpoints/{name}/invocations", json=asked)
        assert answer.status_code == 200, answer.text
        info = client.get(f"/api/2.0/serving-endpoints/get-model-optimization-info/{MODEL}/3").json()
        chunk = info.get("throughput_chunk_size", 0)  # as was measured meanwhile; none on a busy machine
        refused = client.put(
            f"/api/2.0/serving-endpoints/{name}/config",
            json={"served_entities": [{"entity_name": MODEL, "entity_version": 3, "max_provisioned_throughput": 1}]},
        )
        assert client.delete(f"/api/2.0/serving-endpoints/{name}").json() == {}
    if chunk > 1:
        assert refused.status_code == 400
        assert f"{chunk:,}" in refused.json()["message"]
