"""Each kind of process is killed while a stream is being read: no chunk is lost unless the engine itself died."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from server_process import ServerProcess, eventually
from streams import TOKENS, read_stream, whole_text


def one(server: ServerProcess, *words: str) -> int:
    """The one process of this kind, once there is just one."""
    pid: int = eventually(lambda: pids[0] if len(pids := server.pids(*words)) == 1 else 0)
    return pid


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("headrace.server.control", signal.SIGKILL),
        ("headrace.server.node", signal.SIGKILL),
        ("headrace.compute.shim", signal.SIGKILL),
        ("headrace.server.gateway", signal.SIGTERM),
    ],
    ids=["control", "node", "shim", "gateway"],
)
def test_a_stream_outlives_the_others(
    shared_server: ServerProcess, endpoint: str, kind: str, number: signal.Signals
) -> None:
    """Control, node and shim killed, the gateway told to go: every chunk arrives, the engine stays, all are new."""
    engine = one(shared_server, "headrace_engines")
    victim = one(shared_server, kind)
    with shared_server.client() as client:
        expected = whole_text(client, endpoint)
        stream = read_stream(client, endpoint, after_chunks=5, then=lambda: os.kill(victim, number))
    assert stream.broken is None
    assert stream.error is None
    assert stream.done
    assert stream.text == expected
    assert stream.usage is not None
    assert stream.usage["completion_tokens"] == TOKENS
    assert eventually(lambda: one(shared_server, kind) != victim), "it was replaced"
    assert one(shared_server, "headrace_engines") == engine, "the engine was adopted, not started again"
    with shared_server.client() as client:
        assert whole_text(client, endpoint) == expected, "the next request is answered"
        status = eventually(lambda: (r := client.get("/headrace/v1/status")).status_code == 200 and r.json())
    assert status


def test_a_killed_gateway_is_noticed_and_replaced(shared_server: ServerProcess, endpoint: str) -> None:
    """The gateway owns the client's connection: killed, the stream visibly breaks, and the next request is answered."""
    victim = one(shared_server, "headrace.server.gateway")
    with shared_server.client() as client:
        stream = read_stream(client, endpoint, after_chunks=5, then=lambda: os.kill(victim, signal.SIGKILL))
        assert stream.broken is not None, "a broken stream must not look like a finished one"
        assert not stream.done
        assert whole_text(client, endpoint), "no connection was refused: the supervisor holds the socket"
    assert one(shared_server, "headrace.server.gateway") != victim


def test_a_killed_engine_ends_the_stream_with_a_clear_error(server: ServerProcess, demo_model: Path) -> None:
    """The engine killed: the client is told in the stream, a new replica answers, and why the old one died is kept."""
    endpoint = server.deployed(demo_model)
    victim = one(server, "headrace_engines")
    with server.client() as client:
        stream = read_stream(client, endpoint, after_chunks=5, then=lambda: os.kill(victim, signal.SIGKILL))
        assert stream.error is not None
        assert stream.error["code"] == "ENGINE_BROKE_OFF"
        assert not stream.done
        assert eventually(lambda: _answers(client, endpoint)), "a new replica took over"
        listed = client.get("/headrace/v1/deployments").json()["deployments"]
        deployment = client.get(f"/headrace/v1/deployments/{listed[0]['id']}").json()
    dead = [replica for replica in deployment["replicas"] if replica["state"] in {"FAILED", "GONE"}]
    assert dead[0]["exit_status"] == -signal.SIGKILL
    assert dead[0]["log_tail"]
    assert dead[0]["failure"]["code"] == "ENGINE_DIED"
    assert one(server, "headrace_engines") != victim


def test_nobody_is_refused_while_a_killed_engine_is_replaced(server: ServerProcess, demo_model: Path) -> None:
    """The only engine killed: whoever asks then, and until its successor is there, gets an answer and no error."""
    endpoint = server.deployed(demo_model)
    victim = one(server, "headrace_engines")
    asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    os.kill(victim, signal.SIGKILL)
    with server.client() as client, ThreadPoolExecutor(4) as callers:
        for _ in range(5):  # the first while nobody knows of it, the last when the next one answers
            calls = [callers.submit(client.post, f"/v1/{endpoint}/chat/completions", json=asked) for _ in range(4)]
            assert [call.result().status_code for call in calls] == [200] * 4
    assert one(server, "headrace_engines") != victim


def _answers(client: Any, endpoint: str) -> bool:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    return bool(client.post(f"/v1/{endpoint}/chat/completions", json=body).status_code == 200)


def test_a_killed_supervisor_leaves_engines_to_adopt(tmp_path: Path, server: ServerProcess, demo_model: Path) -> None:
    """The supervisor killed: its three children go with it, the engine stays, and the next `serve` adopts it."""
    endpoint = server.deployed(demo_model)
    engine = one(server, "headrace_engines")
    server.process.kill()
    server.process.wait()
    eventually(lambda: not server.pids("headrace.server."))
    server.restart()
    with server.client() as client:
        assert eventually(lambda: _answers(client, endpoint))
    assert one(server, "headrace_engines") == engine


def test_sigterm_drains_then_stops(server: ServerProcess, demo_model: Path) -> None:
    """SIGTERM while a stream is read: the stream is finished, then everything is gone."""
    endpoint = server.deployed(demo_model)
    with server.client() as client:
        stream = read_stream(client, endpoint, after_chunks=5, then=lambda: server.process.send_signal(signal.SIGTERM))
    assert stream.done
    assert stream.usage is not None
    assert stream.usage["completion_tokens"] == TOKENS
    assert server.process.wait(timeout=60) == 0
    assert not server.processes()


def test_a_stop_and_a_start_bring_everything_back(server: ServerProcess, demo_model: Path) -> None:
    """Stopped and started again, the endpoint serves with a new engine: no request is lost, nothing has failed."""
    endpoint = server.deployed(demo_model)
    key = server.key
    assert server.stop() == 0
    assert not server.processes()
    server.restart()
    assert server.key == key, "keys outlive a restart"
    with server.client() as client:
        assert _answers(client, endpoint), "who asks at once waits for the new engine"
        status = client.get("/headrace/v1/status").json()
    assert not status["last_error"]
