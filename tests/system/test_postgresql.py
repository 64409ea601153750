"""A server that keeps its rows in PostgreSQL, which comes and goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postgres_cluster import running_cluster
from server_process import ServerProcess, eventually, running_server

pytestmark = pytest.mark.needs_pg_ctlcluster

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "ignore_eos": True}


def test_models_answer_while_the_database_is_away(tmp_path: Path, demo_model: Path) -> None:
    """Control says 503 with the reason, and goes on by itself; a server started anew finds everything."""
    with (
        running_cluster() as cluster,
        running_server(tmp_path / "data", "--database-url", cluster.new_database()) as server,
    ):
        endpoint = server.deployed(demo_model, modelConfig={"modelDisplayName": "smollm2"})
        assert not (server.data_dir / "headrace.db").exists()
        cluster.stop()
        assert _chat(server)
        refused = _get(server, endpoint)
        assert refused["error"]["status"] == "UNAVAILABLE"
        assert "DATABASE_AWAY" in str(refused)
        cluster.start()
        assert eventually(lambda: _get(server, endpoint).get("deployedModels"))
        assert server.stop() == 0
        server.restart()
        assert eventually(lambda: _get(server, endpoint).get("deployedModels"))
        assert eventually(lambda: _chat(server))


def _chat(server: ServerProcess) -> bool:
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json=CHAT)
    return answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 4


def _get(server: ServerProcess, name: str) -> dict[str, Any]:
    with server.client() as client:
        answer: dict[str, Any] = client.get(f"/v1/{name}").json()
    return answer
