"""A deployment that nobody asks for stops its engine, and the next request starts it again and is answered."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from server_process import ServerProcess, eventually, running_server
from streams import TOKENS, read_stream

QUESTION = {"messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 16, "temperature": 0}


def deployment(client: httpx.Client) -> dict[str, Any]:
    """The one that there is, with its timeline."""
    (listed,) = client.get("/headrace/v1/deployments").json()["deployments"]
    found: dict[str, Any] = client.get(f"/headrace/v1/deployments/{listed['id']}").json()
    return found


def until_asleep(server: ServerProcess, client: httpx.Client, *, times: int) -> None:
    """It sleeps for the so manieth time, and no engine of it runs."""

    def asleep() -> bool:
        return [move["state"] for move in deployment(client)["timeline"]].count("ASLEEP") == times

    eventually(asleep)
    eventually(lambda: not server.pids("headrace_engines"))


def new_key(admin: httpx.Client) -> str:
    """The secret of a key that no gateway has heard of."""
    body = {"name": "late", "role": "predictor", "project": "default"}
    made = eventually(lambda: (r := admin.post("/headrace/v1/keys", json=body)).status_code == 200 and r.json())
    return str(made["secret"])


def test_at_zero_nothing_runs_and_a_request_wakes_it(server: ServerProcess, demo_model: Path) -> None:
    """At zero the timeline says so and the engine's process is gone; a unary request, and later a stream, wake it and
    get the same answer as before."""
    server.cli("deploy", str(demo_model), "--name", "demo", "--runtime", "openvino", "--scale-to-zero-after", "2")
    with server.client() as client:
        before = client.post("/v1/chat/completions", json=QUESTION | {"model": "demo"})
        assert before.status_code == 200, before.text
        until_asleep(server, client, times=1)
        asleep = deployment(client)
        assert asleep["state"] == "ASLEEP"
        assert asleep["timeline"][-1]["detail"] == (
            "Scaled to zero after 2 s without a request; the next request wakes it."
        )
        assert "ASLEEP" in server.cli("status").stdout
        told = server.cli("deployments", "get", asleep["id"]).stdout
        assert "after 2 s without a request" in told

        after = client.post("/v1/chat/completions", json=QUESTION | {"model": "demo"})
        assert after.status_code == 200, after.text
        assert after.json()["choices"][0]["message"] == before.json()["choices"][0]["message"]
        states = [move["state"] for move in deployment(client)["timeline"]]
        woken = states[states.index("ASLEEP") :]
        assert list(dict.fromkeys(woken))[:5] == ["ASLEEP", "PLACING", "STARTING", "WARMING", "READY"]

        until_asleep(server, client, times=2)
        endpoint = client.get("/headrace/v1/status").json()["endpoints"][0]["name"]
        stream = read_stream(client, endpoint, after_chunks=1, then=lambda: None)
        assert (stream.done, stream.error, stream.broken) == (True, None, None)
        assert not client.get("/headrace/v1/status").json()["last_error"]


def test_a_gateway_that_is_replaced_keeps_its_stream_awake(tmp_path: Path, demo_model: Path) -> None:
    """The engine of a stream that an older gateway still carries goes on, and control talks to the new one at once."""
    with running_server(tmp_path / "data", "--drain-timeout", "200") as server, server.client() as client:
        server.cli("deploy", str(demo_model), "--name", "demo", "--runtime", "openvino", "--scale-to-zero-after", "1")
        endpoint = client.get("/headrace/v1/status").json()["endpoints"][0]["name"]
        [old] = server.pids("headrace.server.gateway")
        states: list[str] = []

        def replace_gateway() -> None:
            os.kill(old, signal.SIGTERM)
            eventually(lambda: set(server.pids("headrace.server.gateway")) - {old})
            with server.client() as admin, server.client(new_key(admin)) as late:
                eventually(lambda: late.get("/v1/models").status_code == 200)
                assert old in server.pids("headrace.server.gateway"), "it still carries the stream"
                states.append(deployment(admin)["state"])

        stream = read_stream(client, endpoint, after_chunks=5, then=replace_gateway, max_tokens=5 * TOKENS)
        assert stream.error is None, stream.error
        assert (stream.done, states) == (True, ["READY"])
        until_asleep(server, client, times=1)


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_a_server_that_starts_anew_leaves_it_asleep(server: ServerProcess, demo_model: Path, killed: bool) -> None:
    """Asleep outlives the server, told to stop or killed: after its next start no engine runs, until somebody asks."""
    server.cli("deploy", str(demo_model), "--name", "demo", "--runtime", "openvino", "--scale-to-zero-after", "1")
    with server.client() as client:
        until_asleep(server, client, times=1)
    if killed:
        server.process.kill()
        server.process.wait()
        eventually(lambda: not server.pids("headrace.server."))
    else:
        assert server.stop() == 0
    server.restart()
    with server.client() as client:
        eventually(lambda: client.get("/headrace/v1/status").status_code == 200)
        assert deployment(client)["state"] == "ASLEEP"
        assert not server.pids("headrace_engines")
        answer = client.post("/v1/chat/completions", json=QUESTION | {"model": "demo"})
        assert answer.status_code == 200, answer.text
