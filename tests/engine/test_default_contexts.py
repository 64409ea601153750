"""The context of a model whose config.json names none."""

from pathlib import Path

from engine_process import run_in_engine_environment

from headrace.runtimes.table import RUNTIMES
from headrace.weights.positions import DEFAULT_POSITIONS

PROGRAM = Path(__file__).parent / "default_contexts.py"


def test_a_context_that_is_not_named_is_the_one_that_the_engine_finds() -> None:
    """Of every architecture that is served, the plan takes the default of transformers' own class, as engines do."""
    served = sorted(frozenset().union(*(runtime.model_types for runtime in RUNTIMES.values())))
    assert run_in_engine_environment(PROGRAM, given=served) == DEFAULT_POSITIONS
