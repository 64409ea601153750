"""A checkpoint that no engine should have to load becomes one that all do, on the way to its deployment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server_process import ServerProcess

PROGRAM = Path(__file__).with_name("pickled_model.py")
QUESTION = {"messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 24, "temperature": 0}


@pytest.fixture(scope="module")
def folders(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's first layers, as safetensors, as pickles alone, and as shards without an index."""
    python = os.environ.get("HEADRACE_TEST_ENGINE_PYTHON")
    assert python, "HEADRACE_TEST_ENGINE_PYTHON is not set: run the tests through `make test`, or see CONTRIBUTING.md"
    target = tmp_path_factory.mktemp("models")
    subprocess.run([python, str(PROGRAM), str(demo_model), str(target)], check=True)
    return target


def deployed(server: ServerProcess, folder: Path, name: str, runtime: str) -> list[str]:
    """Deploy a folder and wait; the sentences of its timeline."""
    with server.client() as client:
        before = {each["id"] for each in client.get("/headrace/v1/deployments").json()["deployments"]}
        server.cli("deploy", str(folder), "--name", name, "--runtime", runtime)
        after = {each["id"] for each in client.get("/headrace/v1/deployments").json()["deployments"]}
        [new] = after - before
        found: dict[str, Any] = client.get(f"/headrace/v1/deployments/{new}").json()
    return [move["detail"] for move in found["timeline"]]


def answer(server: ServerProcess, endpoint: str) -> str:
    """The greedy answer."""
    with server.client() as client:
        said = client.post("/v1/chat/completions", json=QUESTION | {"model": endpoint})
    assert said.status_code == 200, said.text
    text: str = said.json()["choices"][0]["message"]["content"]
    return text


def test_a_pickle_is_deployed_as_safetensors_and_answers_the_same(shared_server: ServerProcess, folders: Path) -> None:
    """On transformers and on openvino, which loads no pickle: told in the timeline, made once for both."""
    deployed(shared_server, folders / "safetensors", "before", "transformers")
    timeline = deployed(shared_server, folders / "pickle", "after", "transformers")
    assert any(detail.startswith("Converted to safetensors from a pickle, in ") for detail in timeline)
    assert answer(shared_server, "after") == answer(shared_server, "before") != ""
    timeline = deployed(shared_server, folders / "pickle", "fast", "openvino")
    assert any("Safetensors from a pickle, was there already: nothing to convert. Converted to OpenVINO" in detail
               for detail in timeline)  # fmt: skip
    assert answer(shared_server, "fast")


@pytest.mark.parametrize(
    ("form", "what"), [("saved", "safetensors from a pickle"), ("unindexed", "an index for its files")]
)
def test_what_no_engine_would_find_is_found_and_answers_the_same(
    shared_server: ServerProcess, folders: Path, form: str, what: str
) -> None:
    """A state dict under a name of its own; shards without an index, which become links: on both runtimes."""
    deployed(shared_server, folders / "safetensors", f"as-{form}", "transformers")
    timeline = deployed(shared_server, folders / form, form, "transformers")
    assert any(detail.startswith(f"Converted to {what}, in ") for detail in timeline)
    assert answer(shared_server, form) == answer(shared_server, f"as-{form}") != ""
    deployed(shared_server, folders / form, f"fast-{form}", "openvino")
    assert answer(shared_server, f"fast-{form}")
    copies = {path.stat().st_nlink for path in shared_server.data_dir.glob("models/*/part-*.safetensors")}
    assert copies == ({2} if form == "unindexed" else set())
