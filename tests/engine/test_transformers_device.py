"""Every architecture of the transformers engine on a device that is not the CPU, and never meets a tensor that is.

A stand-in, as machines of tests have no GPU: it computes on the CPU, and refuses what CUDA would (`strict_device`).
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_launch import environment_of
from test_transformers_architectures import NAMES
from test_transformers_embeddings import ENCODERS

HERE = Path(__file__).parent

pytestmark = pytest.mark.timeout(900)
"""The first test waits for the program, which takes a minute of one core; with ten others beside, several."""


def _run(program: str, *arguments: str) -> list[dict[str, Any]]:
    environment = environment_of("transformers")
    done = subprocess.run(
        [str(environment.python), str(HERE / program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(environment.engines_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the program says of each."""
    return {line["name"]: line for line in _run("device_answers.py", str(tmp_path_factory.mktemp("tiny")))}


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_stays_on_its_device(answers: dict[str, dict[str, Any]], name: str) -> None:
    """Loading, prompts in pieces, sequences that share passes, every way of choosing a token: what the CPU says."""
    answer = answers[name]
    assert "error" not in answer, answer["error"]
    assert len(answer["cpu"]) == 5
    assert all(answer["cpu"])
    assert answer["gpu"] == answer["cpu"]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_stay_on_their_device(answers: dict[str, dict[str, Any]], name: str) -> None:
    """The vectors are the CPU's."""
    answer = answers[name]
    assert "error" not in answer, answer["error"]
    for there, here in zip(answer["gpu"], answer["cpu"], strict=True):
        assert there == pytest.approx(here, abs=1e-5)


def test_the_device_refuses_what_cuda_refuses() -> None:
    """A tensor of the CPU beside one of the device, in each of the ways that matter; and takes what CUDA takes."""
    [told] = _run("strict_device_rules.py")
    assert told == {
        "added": "refused",
        "concatenated": "refused",
        "multiplied": "refused",
        "masked": "refused",
        "looked up": "refused",
        "as numpy": "refused",
        "stacked with a scalar tensor": "refused",
        "drawn by the CPU's generator": "refused",
        "drawn by its generator": "taken",
        "with a number": "taken",
        "with a scalar tensor": "taken",
        "indexed by the CPU": "taken",
        "copied here": "taken",
        "copied back": "taken",
        "changed in place": "taken",
    }
