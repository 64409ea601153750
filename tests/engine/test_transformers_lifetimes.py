"""Whatever sequences do, they leave nothing behind."""

from pathlib import Path

import pytest
from engine_process import run_in_engine_environment

PROGRAM = Path(__file__).parent / "generator_lifetimes.py"


@pytest.mark.parametrize("name", ["gemma2", "mamba", "phi3-longrope", "t5"])
def test_a_thousand_sequences_leave_nothing_behind(tmp_path: Path, name: str) -> None:
    """Ended, cancelled, refused, displaced, with good grammars and bad: no slot, no cache and no task remains."""
    answer = run_in_engine_environment(PROGRAM, str(tmp_path), "1", name)
    assert answer["ends"].keys() == {"stop", "length", "cancelled", "refused", "GRAMMAR_INVALID"}
    assert (answer["total"], answer["within_budget"]) == (1000, True)
    assert answer["left"] == {"load": [0, 0, 0.0], "open": 0, "tasks": 0, "sequences": 0, "layers": 0}
