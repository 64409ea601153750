"""An inference table under `kill -9`: each request that was logged is in it once, as another program reads it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
from deltalake import DeltaTable

from server_process import ServerProcess, eventually

WORKSPACE = "projects/default/locations/us-central1"
URL = f"/v1/{WORKSPACE}/endpoints/rivers/chat/completions"
CHAT = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}], "max_tokens": 2}
TABLE = {"enabled": True, "catalog_name": "main", "schema_name": "logs", "table_name_prefix": "rivers"}
ROUNDS = 3


class Caller:
    """Asks an endpoint whose requests go into a table.

    Attributes:
        asked: The requests that were answered and are in the log.
    """

    def __init__(self, server: ServerProcess, client: httpx.Client) -> None:
        self.server, self.client = server, client
        self.asked: set[str] = set()

    def ask(self) -> str:
        """One more, and its id; empty if it was not answered."""
        try:
            answer = self.client.post(URL, json=CHAT)
        except httpx.TransportError:
            return ""
        return answer.headers["x-request-id"] if answer.status_code == 200 else ""

    def ask_and_log(self) -> bool:
        """One more that is answered, and in the log: what a gateway has not handed over yet dies with it."""
        request_id = self.ask()
        if request_id and eventually(lambda: self._is_logged(request_id), timeout_s=5):
            self.asked.add(request_id)
        return bool(request_id)

    def _is_logged(self, request_id: str) -> bool:
        return any(request_id.encode() in path.read_bytes() for path in self._files())

    def _files(self) -> list[Path]:
        return list(self.server.data_dir.glob("gateway*/requests/*.jsonl"))

    def log_is_on(self) -> bool:
        """Whether the gateway knows; its snapshot comes a moment after control's answer."""
        return bool(self.ask() and self._files())

    def kill(self, part: str) -> None:
        """One of the server's processes, which comes back."""
        for pid in self.server.pids(part):
            os.kill(pid, signal.SIGKILL)


def test_every_request_is_in_the_table_once(server: ServerProcess, demo_model: Path) -> None:
    """Control and gateway are killed between and while rows are written; who asked, what, and what came is there."""
    path = server.data_dir / "tables" / "default" / "main" / "logs" / "rivers_payload"

    def rows() -> list[dict[str, Any]]:
        there = DeltaTable.is_deltatable(str(path))
        found: list[dict[str, Any]] = DeltaTable(str(path)).to_pyarrow_table().to_pylist() if there else []
        return found

    body = {"artifact_uri": str(demo_model), "project": "default", "endpoint_id": "rivers"}
    with server.client() as client:
        done = server.await_operation(client.post("/headrace/v1/deployments", json=body).json()["name"])
        assert "response" in done, done
        put = client.put("/api/2.0/serving-endpoints/rivers/ai-gateway", json={"inference_table_config": TABLE})
        assert put.status_code == 200, put.text
        caller = Caller(server, client)
        eventually(caller.log_is_on)
        for _ in range(ROUNDS):
            for _ in range(3):
                eventually(caller.ask_and_log)
            caller.kill("headrace.server.control")
            eventually(caller.ask_and_log)
            caller.kill("headrace.server.gateway")
        eventually(caller.ask_and_log)

        def ids() -> list[str]:
            return [row["databricks_request_id"] for row in rows()]

        eventually(lambda: caller.asked <= set(ids()), timeout_s=120)
        assert len(caller.asked) == ROUNDS * 4 + 1
        assert len(ids()) == len(set(ids()))
        row = next(row for row in rows() if row["databricks_request_id"] in caller.asked)
        assert (row["status_code"], row["logging_error_codes"]) == (200, [])
        assert "Japan" in row["request"]
        assert "choices" in row["response"]
        assert row["requester"]
