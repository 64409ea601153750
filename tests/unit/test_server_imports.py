"""What each process of a server does not load: it would take memory in all of them, and time at each start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

STRANGERS = {
    "gateway": {"sqlalchemy", "alembic", "fastapi", "uvicorn", "headrace.store", "headrace.control", "headrace.node"},
    "node": {"sqlalchemy", "alembic", "fastapi", "uvicorn", "headrace.store", "headrace.control", "headrace.gateway"},
    "control": {"headrace.node", "torch", "transformers", "grpc"},
}


@pytest.mark.parametrize("process", STRANGERS)
def test_a_process_loads_nothing_of_the_others(process: str) -> None:
    """A gateway or node that was killed is back without waiting for the libraries of a database or of the API."""
    program = f"import headrace.server.{process}, sys, json; print(json.dumps(list(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=120)
    assert STRANGERS[process].isdisjoint(json.loads(told.stdout))
