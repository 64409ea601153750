"""Encoders, and what sentence-transformers writes, are served as embedding models."""

from pathlib import Path
from typing import Any

import pytest
from engine_process import run_in_engine_environment

from headrace.weights.task import ENCODER_TYPES

PROGRAM = Path(__file__).parent / "embedding_answers.py"

ENCODERS = sorted(ENCODER_TYPES)
SENTENCE_FOLDERS = ["bert-cls", "bert-lasttoken", "bert-mean", "bloom-mean", "qwen3-dense", "qwen3-lasttoken"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All of them, from one process."""
    answers: dict[str, Any] = run_in_engine_environment(PROGRAM, str(tmp_path_factory.mktemp("tiny")))
    return answers


@pytest.mark.parametrize("name", [*ENCODERS, *SENTENCE_FOLDERS])
def test_vectors_are_those_of_a_plain_computation(answers: dict[str, Any], name: str) -> None:
    """Each input alone through transformers, pooled as the folder says: the same, however requests are put together."""
    answer = answers[name]
    assert (answer["generates"], answer["dimensions"], answer["left"]) == (False, 24 if "dense" in name else 32, 0)
    assert answer["counted"] == 2, "each input is counted once, whoever shares its pass"
    assert max(answer["together"], answer["apart"]) < 1e-4


def test_the_longest_input_is_what_the_folder_says(answers: dict[str, Any]) -> None:
    """RoBERTa's table of positions begins after the padding token; sentence-transformers states a length."""
    stated = [answers[name]["max_input_tokens"] for name in ("bert", "roberta", "bert-cls", "bloom-mean")]
    assert stated == [256, 254, 64, 2048], "Bloom's positions are relative"


def test_a_module_that_is_not_known_is_refused_by_name(answers: dict[str, Any]) -> None:
    """A vector that lacks a step would be wrong without a sign of it."""
    named_by = {"step": "LSTM", "activation": "Softshrink", "another's activation": "mine.Tanh"}
    named_by |= {"scores": "module_output_name scores", "outside": "../first", "early": "without a pooling before it"}
    for what, named in named_by.items():
        assert answers[what]["code"] == "ENGINE_UNSUPPORTED_ARCHITECTURE"
        assert named in answers[what]["message"]


def test_a_dense_layer_that_is_not_the_configurations_is_refused(answers: dict[str, Any]) -> None:
    """Another shape than it says or than the vectors before it have, no bias, and a file that holds no tensors."""
    assert [answers[what]["code"] for what in ("shape", "width", "bias", "junk")] == ["ENGINE_BAD_TENSOR"] * 4
    assert "(48, 32)" in answers["shape"]["evidence"]
    assert "(48, 64)" in answers["width"]["evidence"]
    assert "linear.bias" in answers["bias"]["evidence"]
