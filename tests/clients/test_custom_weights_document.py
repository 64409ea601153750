"""The curl commands of Vertex AI's page on models with custom weights, run as printed.

`documents/` holds them as the page has them. Replaced are only scheme and host, `gcloud` by `headrace` where a token is
printed, the weights' address and the page's placeholders, and one stray backslash that breaks a command in any shell.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server_process import LOCATION, PROJECT, ServerProcess

DOCUMENTS = Path(__file__).parent / "documents"
STRAY_BACKSLASH = 'json" \\  "https'
PLACEHOLDERS = {
    "REGION": LOCATION,
    "LOCATION": LOCATION,
    "PROJECT_ID": PROJECT,
    "MODEL_ID": "my-smollm2",
    "MACHINE_TYPE": "g2-standard-12",
    "ACCELERATOR_TYPE": "NVIDIA_L4",
    "ACCELERATOR_COUNT": "1",
}
pytestmark = pytest.mark.needs_curl


def run(server: ServerProcess, document: str, **placeholders: str) -> str:
    """What one command of the page prints."""
    script = (DOCUMENTS / f"{document}.sh").read_text()
    for host in ("https://${REGION}-aiplatform.googleapis.com", "https://${ENDPOINT_URL}"):
        script = script.replace(host, server.url)
    script = script.replace(STRAY_BACKSLASH, 'json" "https')
    script = script.replace("gcloud auth print-access-token", "headrace auth print-access-token")
    program = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment = server.environment | program | PLACEHOLDERS | placeholders
    command = ["bash", "-euc", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def endpoint_id(shared_server: ServerProcess, demo_model: Path) -> str:
    """An endpoint made by the page's first command."""
    operation = json.loads(run(shared_server, "deploy", MODEL_GCS=str(demo_model)))
    done = shared_server.await_operation(operation["name"])
    assert done["response"]["@type"].endswith("v1beta1.DeployResponse")
    name: str = done["response"]["endpoint"]
    return name.rpartition("/")[2]


def test_deploy_without_a_machine(endpoint_id: str) -> None:
    """The page's deploy command, trailing comma and snake case included, deploys."""
    assert endpoint_id.isdigit()


def test_deploy_with_a_machine(shared_server: ServerProcess, demo_model: Path) -> None:
    """The page's other deploy command names machine and accelerator; both are kept and shown."""
    operation = json.loads(run(shared_server, "deploy_machine", MODEL_GCS=f"file://{demo_model}"))
    endpoint = shared_server.await_operation(operation["name"])["response"]["endpoint"]
    with shared_server.client() as client:
        deployed = client.get(f"/v1/{endpoint}").json()["deployedModels"][0]
        machine = deployed["dedicatedResources"]["machineSpec"]
        assert client.delete(f"/v1/{endpoint}", params={"force": "true"}).status_code == 200
    assert (machine["machineType"], machine["acceleratorType"]) == ("g2-standard-12", "NVIDIA_L4")
    assert machine["acceleratorCount"] == 1


def test_chat(shared_server: ServerProcess, endpoint_id: str) -> None:
    """The page's unary chat is answered with as many tokens as it asks for."""
    answer = json.loads(run(shared_server, "chat", ENDPOINT_ID=endpoint_id))
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == 154


def test_chat_streamed(shared_server: ServerProcess, endpoint_id: str) -> None:
    """The page's streamed chat arrives as server-sent events and says the same as the unary one."""
    events = [
        line.removeprefix("data: ") for line in run(shared_server, "chat_stream", ENDPOINT_ID=endpoint_id).split("\n\n")
    ]
    assert events[-2:] == ["[DONE]", ""]
    chunks = [json.loads(event) for event in events[:-2]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    unary = json.loads(run(shared_server, "chat", ENDPOINT_ID=endpoint_id))
    assert len(chunks) > 10
    assert text == unary["choices"][0]["message"]["content"]


def test_predict(shared_server: ServerProcess, endpoint_id: str) -> None:
    """The page's `:predict` answers one prediction per instance, prompt and output in it."""
    answer: dict[str, Any] = json.loads(run(shared_server, "predict", ENDPOINT_ID=endpoint_id))
    [prediction] = answer["predictions"]
    assert prediction.startswith("Prompt:\nHow to tell the time by looking at the sky?\nOutput:\n")
    assert answer["deployedModelId"]
    assert answer["model"].startswith(f"projects/{PROJECT}/locations/{LOCATION}/models/")


def test_predict_by_a_service_account(shared_server: ServerProcess, endpoint_id: str, tmp_path: Path) -> None:
    """The same command, with the token of the service account that GOOGLE_APPLICATION_CREDENTIALS names."""
    file = tmp_path / "sa.json"
    create = ("keys", "create", "--format", "service-account", "--out", str(file), "--project", PROJECT)
    shared_server.cli(*create)
    variables = {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "HEADRACE_API_KEY": ""}
    answer = json.loads(run(shared_server, "predict", ENDPOINT_ID=endpoint_id, **variables))
    assert len(answer["predictions"]) == 1


def test_stream_raw_predict(shared_server: ServerProcess, endpoint_id: str) -> None:
    """The page's `:streamRawPredict` streams the same text that `:predict` answers whole."""
    lines = run(shared_server, "stream_raw_predict", ENDPOINT_ID=endpoint_id).splitlines()
    streamed = "".join(json.loads(line)["predictions"][0] for line in lines if line)
    [whole] = json.loads(run(shared_server, "predict", ENDPOINT_ID=endpoint_id))["predictions"]
    assert len(lines) > 10
    assert whole.endswith(streamed.removeprefix(whole.partition("Output:\n")[0] + "Output:\n"))
