"""MLflow's deployments client for Databricks, unmodified, over plain HTTP with a token."""

from __future__ import annotations

from pathlib import Path

from databricks_models import CLIENT, MODEL, environment, register
from vendor_client import run_client

from server_process import ServerProcess


def test_an_endpoints_life(shared_server: ServerProcess, demo_model: Path) -> None:
    """Made, listed, asked whole and streamed, given another config and deleted, by the client's own functions."""
    register(shared_server, demo_model)
    program = Path(__file__).parent / "programs" / "mlflow_serving.py"
    told = run_client(CLIENT, program, MODEL, env=environment(shared_server))
    assert told["made"] == {"ready": "READY", "config_update": "NOT_UPDATING"}
    assert "mf1" in told["listed"]
    assert "Tokyo" in told["chat"]
    assert told["streamed"] == told["chat"]
    assert told["updated"] is True
    assert told["left"] == []
