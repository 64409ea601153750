"""The OpenAPI document against the live server: Schemathesis asks whatever it allows, and what it does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from server_process import ServerProcess, eventually

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(600)  # a minute and a half on two idle cores
def test_the_server_does_what_its_description_says(shared_server: ServerProcess, tmp_path: Path) -> None:
    """All of Schemathesis' checks hold on every route: nothing answers 5xx, and nothing in the document is untrue."""
    with shared_server.client() as client:
        eventually(lambda: client.get("/openapi.json").status_code == 200)  # control may come after the gateway
    python = Path(os.environ["HEADRACE_TEST_SCHEMATHESIS_PYTHON"])
    done = subprocess.run(
        [python.with_name("schemathesis"), "--config-file", CONFIG, "run", f"{shared_server.url}/openapi.json"],
        env=os.environ | {"HEADRACE_API_KEY": shared_server.key, "NO_PROXY": "*"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-2000:]}"
    logs = {path.name: path.read_text() for path in (shared_server.data_dir / "logs").glob("*.log")}
    assert not [name for name, text in logs.items() if "Traceback" in text]
    with shared_server.client() as client:
        assert client.get("/headrace/v1/status").status_code == 200
