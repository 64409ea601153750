"""Every architecture of the tables: greedy answers are those of ``model.generate``, alone and together."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_launch import environment_of

PROGRAM = Path(__file__).parent / "architecture_answers.py"

ONE_AT_A_TIME = {"bart", "mamba", "marian", "mbart", "mt5", "pegasus", "phi3-longrope", "t5", "umt5"}
"""Encoder-decoders, models without a key-value cache, and rotary scaling that depends on the longest of a batch."""

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
    *("gptj", "granite", "granitemoe", "granitemoehybrid", "jais2", "llama", "llama4_text", "mamba", "marian", "mbart"),
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
    """Alone, with others that come and go, and when the cache is too small for all: token by token the same."""
    answer = answers[name]
    assert "error" not in answer, answer["error"]
    assert answer["distinct"] > 1  # the prompts matter
    assert (answer["alone"], answer["together"], answer["pressed"]) == (True, True, True)
    assert answer["nothing_left"]
    assert answer["shares"] == (name not in ONE_AT_A_TIME)
