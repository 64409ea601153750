"""What is planned for so many full contexts holds so many."""

from pathlib import Path

import pytest
from engine_process import run_in_engine_environment

PROGRAM = Path(__file__).parent / "full_contexts.py"


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_eight_full_contexts_run_at_once(tmp_path: Path, name: str) -> None:
    """None is put back for the others' last tokens, and no block has room for what no sequence can become."""
    told = run_in_engine_environment(PROGRAM, str(tmp_path), name)
    assert told["at once"] == 8
    assert told["lengths"] == [200]
    assert told["put back"] == 0
    assert told["within budget"]
    assert told["share of budget"] > 0.9
