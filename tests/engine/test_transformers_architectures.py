"""Every architecture of the tables: greedy answers are those of ``model.generate``, alone and together."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_launch import environment_of

pytestmark = pytest.mark.timeout(900)
"""The first test waits for the program, which takes a minute of both cores; with ten others beside, more than five."""

PROGRAM = Path(__file__).parent / "architecture_answers.py"

ONE_AT_A_TIME = {"llama-longrope"}
"""Transformers does not read it anew where its frequencies change: what is kept of it depends on when it was read."""

ROWS_PER_PASS = 2.5
"""Of seven sequences that come at once, the least that is called sharing: the longest prompt comes in pieces, alone."""

WITHOUT_LINEAR_LAYERS = {"gpt2"}
"""Of torch's own type: transformers has another for it."""

NAMES = [
    *(
        "bart",
        "bloom",
        "codegen",
        "cohere",
        "cohere2",
        "deepseek_v2",
        "deepseek_v3",
        "exaone4",
        "falcon",
        "falcon-alibi",
        "falcon_mamba",
    ),
    *(
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "glm",
        "glm4",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gpt_oss",
    ),
    *("gptj", "granite", "granitemoe", "granitemoehybrid", "jais2", "llama", "llama-dynamic"),
    *("llama-longrope", "llama4", "llama4_text", "mamba", "mamba2", "marian", "mbart"),
    *("ministral3", "mistral", "mistral3", "mixtral", "mpt", "mt5", "nemotron", "olmo", "olmo2", "olmo3", "opt"),
    *("pegasus", "persimmon", "phi", "phi3", "phi3-longrope", "qwen2", "qwen2-window", "qwen2_moe", "qwen3"),
    *("qwen3_moe", "qwen3_next", "smollm3", "stablelm", "starcoder2", "t5", "umt5"),
]
"""What ``tiny_models.TEXT_MODELS`` makes; that module needs transformers, which is not here."""


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the program says of each: one process for all, as importing torch takes longer than a model."""
    environment = environment_of("transformers")
    done = subprocess.run(
        [str(environment.python), str(PROGRAM), str(tmp_path_factory.mktemp("tiny"))],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(environment.engines_path), "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line for line in lines}


def test_every_tiny_model_is_looked_at(answers: dict[str, dict[str, Any]]) -> None:
    """The list here is the list there."""
    assert sorted(answers) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_is_what_generate_says(answers: dict[str, dict[str, Any]], name: str) -> None:
    """Alone, with others that come and go or come at once, and when the cache is too small for all: token by token."""
    answer = answers[name]
    assert "error" not in answer, answer["error"]
    assert answer["distinct"] > 1  # the prompts matter
    ways = ("alone", "together", "at_once", "pressed")
    assert {way: answer[way] for way in ways} == dict.fromkeys(ways, True)
    assert answer["nothing_left"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_done_for_speed_changes_no_number(answers: dict[str, dict[str, Any]], name: str) -> None:
    """In bfloat16, with matrices laid out for a CPU and attention as one should have it: what transformers computes."""
    answer = answers[name]
    assert "error" not in answer, answer["error"]
    assert answer["packs"]
    assert answer["attends"]
    assert (answer["matrices_packed"] > 0) is (answer["can_pack"] and name not in WITHOUT_LINEAR_LAYERS)


def test_matrices_with_another_use_stay_as_they_are(answers: dict[str, dict[str, Any]]) -> None:
    """A head that is the table of embeddings is not there twice, and what a model's code reads is not unpacked."""
    tied = [answer for answer in answers.values() if answer["tied"]]
    assert len(tied) > 1
    assert [answer["name"] for answer in tied if "lm_head" not in answer["left_plain"]] == []
    assert "wo" in answers["t5"]["left_plain"]
    assert "dt_proj" in answers["mamba"]["left_plain"]
    if answers["llama"]["can_pack"]:
        assert "q_proj" not in answers["llama"]["left_plain"]


@pytest.mark.parametrize("name", NAMES)
def test_sequences_share_passes(answers: dict[str, dict[str, Any]], name: str) -> None:
    """Sequences that come at once are computed together, but for the few that would change each other's answers."""
    answer = answers[name]
    if name in ONE_AT_A_TIME:
        assert (answer["shares"], answer["rows_per_pass"]) == (False, 1)
    else:
        assert answer["shares"]
        assert answer["rows_per_pass"] > ROWS_PER_PASS
