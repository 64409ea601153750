"""Runs inside a mount namespace: a server whose data directory holds 100 MB, and a model that does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server_process import running_server

data_dir, model = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(data_dir)], check=True)
with running_server(data_dir) as server:
    operation = server.await_operation(server.deploy(model))
    assert operation["error"]["details"][0]["reason"] == "DISK_FULL", operation
    assert not any(path.stat().st_size for path in (data_dir / "models").rglob("*") if path.is_file()), "half a copy"
    with server.client() as client:
        assert client.get("/headrace/v1/status").status_code == 200
