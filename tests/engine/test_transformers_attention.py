"""Attention as the transformers engine has it computed on a CPU."""

from pathlib import Path

from engine_process import run_in_engine_environment

PROGRAM = Path(__file__).parent / "attention_cases.py"
CASES = 96


def test_every_head_reads_what_it_would_by_itself() -> None:
    """Whoever shares keys and values, whatever is masked and in either format: up to its rounding, the same numbers."""
    cases = run_in_engine_environment(PROGRAM)
    assert len(cases) == CASES
    assert [case["name"] for case in cases if case["shapes"][0] != case["shapes"][1]] == []
    assert [case["name"] for case in cases if not case["contiguous"]] == []
    assert [case["name"] for case in cases if case["left"] is case["hastened"]] == []
    assert [(case["name"], case["off"]) for case in cases if not case["off"] < case["exact_enough"]] == []
