"""Whatever sequences do, they leave nothing behind; and when the pipeline breaks, everybody is told."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_launch import environment_of, in_the_form_of

PROGRAM = Path(__file__).parent / "openvino_lifetimes.py"
MODELS = Path(__file__).parent / "tiny_models.py"


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a thousand sequences of one engine came to, and of a pipeline; the model is tiny."""
    environment, root = environment_of("openvino"), tmp_path_factory.mktemp("life")
    subprocess.run([str(environment_of("transformers").python), str(MODELS), str(root), "llama"], check=True)
    folder = in_the_form_of("openvino", root / "llama")
    done = subprocess.run(
        [str(environment.python), str(PROGRAM), str(folder), "7"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(environment.engines_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_thousand_that_come_and_go_leave_nothing_behind(life: dict[str, Any]) -> None:
    """Ended, cancelled, refused, displaced from a cache that is too small for all: no place, no task and no object."""
    assert {"length", "cancelled", "refused", "GRAMMAR_INVALID"} <= life["ends"].keys()
    assert life["ends"].keys() <= {"length", "stop", "cancelled", "refused", "GRAMMAR_INVALID"}
    assert sum(life["ends"].values()) == 1000
    assert life["left"] == {"load": [0, 0, 0.0], "open": 0, "tasks": 0, "sequences": 0}


def test_a_request_that_is_not_taken_fails_alone(life: dict[str, Any]) -> None:
    """Settings that GenAI refuses, or that have no form on the wire, are that request's failure and take no place."""
    left = {"load": [0, 0, 0.0], "open": 0, "tasks": 0, "sequences": 0}
    assert life["not taken"] == {"codes": ["SAMPLING_IMPOSSIBLE", "OverflowError"], "bystander": 20, "left": left}


def test_one_that_is_cancelled_takes_nobody_along(life: dict[str, Any]) -> None:
    """Who waits for its blocks at that moment, when GenAI gives up everybody, gets all its tokens."""
    assert life["held up"] == {"short": [], "failed": []}


def test_a_thousand_leave_no_block_of_the_cache_in_use(life: dict[str, Any]) -> None:
    """GenAI itself counts no request and no used block when all are gone; most blocks were in use before."""
    pipeline = life["pipeline"]
    assert pipeline["ended"] > 300
    assert pipeline["most"] > 60
    assert pipeline["left"] == [0, 0.0, 0]


def test_the_cache_takes_what_it_was_given(life: dict[str, Any]) -> None:
    """As many bytes as its blocks were reckoned to have: our arithmetic is the plugin's."""
    taken, reckoned = life["pipeline"]["bytes"]
    assert taken == reckoned


def test_a_step_that_throws_is_the_end_and_everybody_is_told(life: dict[str, Any]) -> None:
    """Who runs, who caused it and who comes later; and the process, once."""
    assert life["last words"] == {"codes": ["ENGINE_DIED"] * 3, "deaths": ["ENGINE_DIED"], "load": [0, 0, 0.0]}
