"""Quantised weights that a software specification accepts, served as they are by the runtime that is chosen."""

import subprocess
from pathlib import Path

import pytest
from engine_launch import environment_of
from engine_process import start_engine
from model_folders import shallow

from headrace.control import FolderChecker
from headrace.resources.errors import WeightsQuantised
from headrace.resources.models import ModelVersion, ServingSpec
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.nodes import Node

PROGRAM = Path(__file__).parent / "quantised_model.py"
NODE = Node(id="local", boot_id="b", memory_bytes=16 << 30, cores=2, last_seen_at=0.0)
LAYERS = 4
PROMPT = "The largest rivers of Europe are the Volga, the Danube"


@pytest.fixture(scope="module")
def folders(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's first layers in GPTQ of four bits, and what those bits stand for."""
    out = tmp_path_factory.mktemp("quantised")
    python = environment_of("transformers").python
    source = shallow(model_folder, out / "shallow", LAYERS)
    subprocess.run([str(python), str(PROGRAM), str(source), str(out)], check=True)
    return out


def version(folder: Path, specification: str = "") -> ModelVersion:
    """A version that asks for a specification."""
    return ModelVersion(
        scope=DEFAULT_SCOPE,
        model_id="m",
        version="1",
        artifact_uri=str(folder),
        spec=ServingSpec(software_specification=specification),
        created_at=1.0,
    )


def answer(folder: Path, engine: str) -> str:
    """The greedy continuation."""
    with start_engine(folder, engine=engine, max_model_len=512) as running:
        running.wait_ready()
        text: str = running.complete(PROMPT, max_tokens=12)["choices"][0]["text"]
    return text


def test_what_the_specification_accepts_is_served_as_it_is(folders: Path) -> None:
    """Refused without it; with it vLLM is chosen, on a CPU too, and answers what the bits stand for."""
    with pytest.raises(WeightsQuantised) as refused:
        FolderChecker().check(version(folders / "gptq"), NODE)
    assert "--specification watsonx-cfm-caikit-1.1" in refused.value.fix
    checked = FolderChecker().check(version(folders / "gptq", "watsonx-cfm-caikit-1.1"), NODE)
    assert checked.runtime == "vllm"
    assert checked.predicted is not None
    stored = (folders / "gptq" / "model.safetensors").stat().st_size
    assert stored - 200_000 < checked.predicted.weights_bytes <= stored  # all but the header
    assert answer(folders / "gptq", checked.runtime) == answer(folders / "plain", "transformers")
