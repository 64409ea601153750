"""MLflow's registry client for `databricks-uc`, unmodified: a transformers model registered, and answering a chat."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from vendor_client import run_client

from mlflow_folders import MLMODEL, PYFUNC_ONLY
from server_process import ServerProcess

SCRIPT = Path(__file__).with_name("sdk_mlflow_registry.py")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
NAME = "ml.llm.smol"


def saved(folder: Path, model: Path) -> Path:
    """The demo model as MLflow's flavour transformers saves it."""
    for path in model.iterdir():
        if path.is_file() and not path.name.startswith("."):
            place = folder / ("components/tokenizer" if path.name in TOKENIZER_FILES else "model") / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    (folder / "MLmodel").write_text(MLMODEL)
    return folder


@pytest.fixture(scope="module")
def told(shared_server: ServerProcess, demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What MLflow saw."""
    work = tmp_path_factory.mktemp("mlflow")
    other = work / "other"
    other.mkdir()
    signature = MLMODEL[MLMODEL.index("signature:") :]
    (other / "MLmodel").write_text(PYFUNC_ONLY.decode() + signature)
    return run_client(
        "HEADRACE_TEST_DATABRICKS_PYTHON",
        SCRIPT,
        str(saved(work / "model", demo_model)),
        str(other),
        str(work / "back"),
        env={
            "DATABRICKS_HOST": shared_server.url,
            "DATABRICKS_TOKEN": shared_server.key,
            "MLFLOW_TRACKING_URI": f"sqlite:///{work / 'tracking.db'}",
        },
    )


def test_a_model_is_registered(told: Any) -> None:
    """Uploaded and READY when the client's call returns; found by name, alias and search, with what was said of it."""
    assert told["made"] == ["1", "READY"]
    assert told["by_alias"] == "1"
    assert told["version"] == ["first", {"k": "v"}, True]
    description, tags, aliases = told["model"]
    assert (description, tags) == ("It answers.", {"of": "tests"})
    assert str(aliases["champion"]) == "1"
    assert told["found"] == [[NAME, "1"]]
    assert {NAME, "system.ai.smollm2_135m_instruct"} <= set(told["names"])


def test_what_is_refused(told: Any) -> None:
    """A name that is taken or has two levels, a version that is not there; another flavour fails by its name."""
    assert told["again"][0] == "RESOURCE_ALREADY_EXISTS"
    assert "specify all three levels" in told["two_levels"][1]
    assert told["missing"][0] == "RESOURCE_DOES_NOT_EXIST"
    number, status, message = told["other"]
    assert (number, status) == ("2", "FAILED_REGISTRATION")
    assert "FLAVOUR_NOT_SUPPORTED" in message
    assert "'pyfunc'" in message
    assert told["left"] == ["1"]


def test_what_was_uploaded_is_downloaded(told: Any) -> None:
    """As MLflow saved it."""
    assert "MLmodel" in told["downloaded"]
    assert {"model/config.json", "components/tokenizer/tokenizer.json"} <= set(told["downloaded"])


def test_its_deployment_answers_a_chat(told: Any, shared_server: ServerProcess) -> None:
    """The registered version, by its model's id and alias, through our own commands."""
    with shared_server.client() as client:
        models = client.get("/headrace/v1/models").json()["models"]
        (model,) = (each for each in models if each["display_name"] == NAME)
        parent = "/v1/projects/default/locations/us-central1"
        made = client.post(f"{parent}/endpoints", params={"endpointId": "smol"}, json={"displayName": "smol"})
        assert made.status_code == 200, made.text
        shared_server.cli("endpoints", "deploy", "smol", f"{model['id']}@champion")
        chat = {"model": "smol", "messages": [{"role": "user", "content": "The capital of Japan?"}], "max_tokens": 8}
        answer = client.post("/v1/chat/completions", json=chat)
    assert answer.status_code == 200, answer.text
    assert json.dumps(answer.json()["choices"][0]["message"]["content"])
    assert answer.json()["usage"]["completion_tokens"] > 0
