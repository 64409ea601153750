"""Scores that are not numbers are never drawn from."""

from pathlib import Path

from engine_process import run_in_engine_environment

PROGRAM = Path(__file__).parent / "sampler_failures.py"


def test_who_is_at_fault_is_told_apart() -> None:
    """What the request makes infinite is the request's fault; what the model computes so is not."""
    drawn, greedy = {"seed": 1}, {"temperature": 0}
    overflow = {"repetition_penalty": 1e-39}
    given = [
        ([5.0, 1.0], greedy),
        ([5.0, 1.0], greedy | overflow),
        ([5.0, 1.0], drawn | overflow),
        ([None, 1.0], greedy),
        ([None, 1.0], drawn),
        ([None, 1.0], drawn | overflow),
    ]
    answers = run_in_engine_environment(PROGRAM, given=given)
    assert answers == [0, *["SamplingImpossible"] * 2, *["GenerationFailed"] * 3]
