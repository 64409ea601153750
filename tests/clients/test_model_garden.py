"""Model Garden through the vendor's own clients, unmodified, with a hub, a mirror and real engines behind it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.catalogue import entries, notebook_of
from hub_server import Hub
from server_process import PROJECT, ServerProcess, running_server

PROGRAMS = Path(__file__).parent / "programs"
SDKS = ("HEADRACE_TEST_VERTEX_SDK_2_PYTHON", "HEADRACE_TEST_VERTEX_SDK_1_PYTHON")
ON_HUB, IN_MIRROR = "acme/river", "Qwen/Qwen3-0.6B"


@pytest.fixture(scope="module")
def garden_server(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[ServerProcess]:
    """A server whose hub has one model and whose mirror has another: the demonstration model's files by their names."""
    root = tmp_path_factory.mktemp("garden")
    for folder in (root / "hub" / ON_HUB, root / "mirror" / IN_MIRROR):
        shutil.copytree(demo_model, folder)
    with Hub(root / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        patch.setenv("HF_ENDPOINT", hub.url)
        try:
            with running_server(root / "data", "--model-mirror", str(root / "mirror")) as server:
                yield server
        finally:
            hub.shutdown()
            thread.join()


def told_by(server: ServerProcess, variable: str, program: str, *arguments: str) -> Any:
    """The JSON in a program's last line; before it the SDK says what it does."""
    return json.loads(ran(server, variable, program, *arguments).splitlines()[-1])


def ran(server: ServerProcess, variable: str, program: str, *arguments: str, **more: str) -> str:
    """What a program prints, run by the interpreter that a variable names."""
    environment = server.environment | {"HEADRACE_PROJECT": PROJECT, "HF_HUB_OFFLINE": "1"} | more
    command = [os.environ[variable], str(PROGRAMS / program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("sdk", SDKS)
def test_what_there_is_and_where_it_runs(garden_server: ServerProcess, sdk: str) -> None:
    """Both generations of the SDK list the catalogue, filter it, and get machines for a model of it."""
    told = told_by(garden_server, sdk, "open_model.py", "look")
    assert set(told["all"]) == {entry.id for entry in entries()}
    assert told["gemma"] == ["google/gemma3@gemma-3-1b-it", "google/gemma3@gemma-3-1b-pt"]
    assert told["hub"] == ["qwen/qwen3-0.6b"]
    assert told["options"] >= 2
    assert told["hub_options"] >= 1
    assert 'machine_type="g2-standard-4"' in told["concise"]
    assert 'accelerator_type="NVIDIA_L4"' in told["concise"]


def test_the_demo_model_is_deployed_asked_and_deleted(garden_server: ServerProcess) -> None:
    """`OpenModel(…).deploy(accept_eula=True)` brings the demonstration model up; it answers, and is gone afterwards."""
    told = told_by(garden_server, SDKS[0], "open_model.py", "deploy")
    assert "Tokyo" in told["answer"]
    with garden_server.client() as client:
        assert client.get(f"/v1/{told['name']}").status_code == 404


def test_what_is_refused_says_why(garden_server: ServerProcess) -> None:
    """The SDK raises Google's own exceptions, with our code as the reason and the licence or both addresses in them."""
    told = told_by(garden_server, SDKS[0], "open_model.py", "refused")
    assert (told["before"], told["after"]) == (False, True)
    assert told["licence"]["reason"] == "LICENCE_NOT_ACCEPTED"
    assert "Gemma Terms of Use" in told["licence"]["text"]
    assert "https://ai.google.dev/gemma/terms" in told["licence"]["text"]
    assert told["weights"]["reason"] == "ARTIFACTS_NOT_FOUND"
    assert "hf://google/gemma-3-1b-it" in told["weights"]["text"]
    assert "mirror/google/gemma-3-1b-it" in told["weights"]["text"]
    assert (told["nothing"]["type"], told["nothing"]["reason"]) == ("NotFound", "MODEL_NOT_FOUND")


def test_genai_lists_a_publishers_models(garden_server: ServerProcess) -> None:
    """google-genai's `models.list()` pages through Google's models."""
    names = told_by(garden_server, "HEADRACE_TEST_GENAI_PYTHON", "genai_models.py")
    assert names == [f"publishers/google/models/{name}" for name in ("gemma2", "gemma3", "medgemma")]


@pytest.mark.parametrize(("model", "source"), [(f"hf:{ON_HUB}", "hf://"), ("garden:qwen/qwen3@qwen3-0.6b", "file://")])
def test_weights_come_from_the_hub_or_the_mirror(garden_server: ServerProcess, model: str, source: str) -> None:
    """The command line deploys a model by its name on the Hub, one of the catalogue from the mirror; both answer."""
    operation = json.loads(garden_server.cli("deploy", model, "--name", source[:2], "--json").stdout)
    endpoint = operation["targets"]["endpoint"]
    answer = garden_server.cli("chat", source[:2], "-m", "What is the capital of Japan?")
    assert "Tokyo" in answer.stdout
    with garden_server.client() as client:
        versions = client.get("/headrace/v1/models", params={"project": "default"}).json()
    assert source in json.dumps(versions)
    garden_server.cli("undeploy", endpoint, "--yes")


def test_notebooks(garden_server: ServerProcess, tmp_path: Path) -> None:
    """Every entry's notebook is one by Jupyter's own rules; the demonstration model's, run, gets an answer."""
    for entry in entries():
        (tmp_path / f"{entry.version}.ipynb").write_text(json.dumps(notebook_of(entry)))
    (demo,) = [entry.version for entry in entries() if entry.demo]
    others = sorted(str(path) for path in tmp_path.glob("*.ipynb") if path.stem != demo)
    made = tmp_path / "made.ipynb"
    garden_server.cli("garden", "notebook", demo, "--output", str(made))
    home = {"HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter")}
    assert "Tokyo" in ran(garden_server, SDKS[0], "notebooks.py", *others, str(made), **home)
