"""The engine and model that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_process import THREADS, EngineProcess, required, run_in_engine_environment, start_engine
from reference_cases import GREEDY_TOKENS, PROMPTS, SAMPLED_PROMPT, SAMPLING


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The real model's folder."""
    return required("HEADRACE_TEST_MODEL")


@pytest.fixture(scope="session")
def engine(model_folder: Path) -> Iterator[EngineProcess]:
    """An engine that is ready, shared by all tests that leave it as it was."""
    with start_engine(model_folder) as engine:
        engine.wait_ready()
        yield engine


@pytest.fixture(scope="session")
def reference(model_folder: Path) -> dict[str, Any]:
    """What transformers' own ``generate`` says to `PROMPTS`, and its probabilities of one first token."""
    program = Path(__file__).parent / "generate_reference.py"
    given = {"prompts": PROMPTS, "max_new_tokens": GREEDY_TOKENS, "sampled_prompt": SAMPLED_PROMPT} | SAMPLING
    answer: dict[str, Any] = run_in_engine_environment(program, str(model_folder), THREADS, given=given)
    return answer
