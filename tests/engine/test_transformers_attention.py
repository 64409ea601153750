"""Attention as the transformers engine has it computed on a CPU."""

import json
import os
import subprocess
from pathlib import Path

from engine_launch import environment_of

PROGRAM = Path(__file__).parent / "attention_cases.py"
CASES = 96


def test_every_head_reads_what_it_would_by_itself() -> None:
    """Whoever shares keys and values, whatever is masked and in either format: up to its rounding, the same numbers."""
    environment = environment_of("transformers")
    done = subprocess.run(
        [str(environment.python), str(PROGRAM)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(environment.engines_path), "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(cases) == CASES
    assert [case["name"] for case in cases if case["shapes"][0] != case["shapes"][1]] == []
    assert [case["name"] for case in cases if not case["contiguous"]] == []
    assert [(case["name"], case["off"]) for case in cases if not case["off"] < case["exact_enough"]] == []
