"""Whatever sequences do, they leave nothing behind; and when the pipeline breaks, everybody is told."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_launch import environment_of, folder_for

PROGRAM = Path(__file__).parent / "openvino_lifetimes.py"


@pytest.fixture(scope="module")
def life() -> dict[str, Any]:
    """What 200 sequences of one engine came to."""
    environment = environment_of("openvino")
    done = subprocess.run(
        [str(environment.python), str(PROGRAM), str(folder_for("openvino")), "7"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(environment.engines_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_two_hundred_that_come_and_go_leave_nothing_behind(life: dict[str, Any]) -> None:
    """Ended, cancelled, refused, displaced from a cache that is too small for all: no place, no block and no task."""
    assert {"length", "cancelled", "refused", "GRAMMAR_INVALID"} <= life["ends"].keys()
    assert life["ends"].keys() <= {"length", "stop", "cancelled", "refused", "GRAMMAR_INVALID"}
    assert sum(life["ends"].values()) == 200
    assert life["left"] == {"load": [0, 0, 0.0], "open": 0, "tasks": 0, "sequences": 0}


def test_a_request_that_is_not_taken_fails_alone(life: dict[str, Any]) -> None:
    """Settings that GenAI refuses, or that have no form on the wire, are that request's failure and take no place."""
    left = {"load": [0, 0, 0.0], "open": 0, "tasks": 0, "sequences": 0}
    assert life["not taken"] == {"codes": ["SAMPLING_IMPOSSIBLE", "OverflowError"], "bystander": 20, "left": left}


def test_the_cache_takes_what_it_was_given(life: dict[str, Any]) -> None:
    """As many bytes as its blocks were reckoned to have: our arithmetic is the plugin's."""
    taken, reckoned = life["cache_bytes"]
    assert taken == reckoned


def test_a_step_that_throws_is_the_end_and_everybody_is_told(life: dict[str, Any]) -> None:
    """Who runs, who caused it and who comes later; and the process, once."""
    assert life["last words"] == {"codes": ["ENGINE_DIED"] * 3, "deaths": ["ENGINE_DIED"], "load": [0, 0, 0.0]}
