"""How the OpenVINO engine reads prompts: nobody who waits for the next token waits for all of another's prompt."""

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from engine_launch import environment_of, folder_for, in_the_form_of
from model_folders import shallow

PROGRAM = Path(__file__).parent / "openvino_reading.py"
LONG = 700


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process came to."""
    environment = environment_of("openvino")
    folder = in_the_form_of(
        "openvino", shallow(folder_for("transformers"), tmp_path_factory.mktemp("read") / "model", 2)
    )
    done = subprocess.run(
        [str(environment.python), str(PROGRAM), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"PYTHONPATH": str(environment.engines_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_prompt_that_nobody_waits_for_is_read_in_large_pieces(told: dict[str, Any]) -> None:
    """Alone, in two steps."""
    assert told["alone"] == [[512], [LONG]]


def test_beside_somebody_who_waits_it_is_read_in_small_pieces(told: dict[str, Any]) -> None:
    """No step reads more than two blocks of it, and each gives the other one token."""
    ends = [0, *(end for step in told["beside"] for end in step)]
    assert all(len(step) == 1 for step in told["beside"])
    assert ends[-1] == LONG
    assert max(after - before for before, after in pairwise(ends)) <= 64
    assert set(told["others"]) == {1}


def test_prompts_are_read_one_after_the_other_and_a_short_one_passes(told: dict[str, Any]) -> None:
    """The second long one begins when the first is read; a short one behind both goes with the first's next piece."""
    turns = [[(name, upto) for name, upto in step] for step in told["turns"]]
    assert turns[0] == [("first", 32), ("short", 20)]
    [last] = [place for place, step in enumerate(turns) if ("first", LONG) in step]
    assert all(name == "first" for step in turns[1:last] for name, _ in step)
    assert all(name == "second" for step in turns[last + 1 :] for name, _ in step)


def test_more_prompts_than_are_written_to_are_read_in_large_pieces(told: dict[str, Any]) -> None:
    """Two prompts beside one answer: each step reads what it may beside many."""
    assert told["more than are written to"] == [192, 384, 576]


def test_what_is_in_the_cache_is_not_read_again(told: dict[str, Any]) -> None:
    """The same prompt comes whole in one step, beside others too."""
    assert told["again"] == [[LONG]]


def test_one_that_leaves_while_it_is_read_leaves_nothing(told: dict[str, Any]) -> None:
    """No further piece is given to the pipeline, which counts no request and no used block in the end."""
    assert told["cancelled"] == [[], [], []]
    assert told["left"] == [0, 0.0]


def test_pieces_say_what_the_whole_says(told: dict[str, Any]) -> None:
    """The first token's log-probability is that of a prompt that was given whole, without any cache of prefixes."""
    assert told["whole"] == [[LONG], *[[]] * (len(told["whole"]) - 1)]
    assert max(told["differences"]) < 1e-3
