"""One autoscaler from nothing to several replicas and back, with a real engine, and no request lost on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from server_process import ServerProcess, eventually

QUESTION = {"model": "demo", "messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 48}
CALLERS = 6


def deployment(client: httpx.Client) -> dict[str, Any]:
    """The one that there is, with its timeline."""
    (listed,) = client.get("/headrace/v1/deployments").json()["deployments"]
    found: dict[str, Any] = client.get(f"/headrace/v1/deployments/{listed['id']}").json()
    return found


def serving(client: httpx.Client) -> int:
    """How many replicas take requests."""
    return sum(each["state"] == "READY" for each in deployment(client)["replicas"])


def ask_until(server: ServerProcess, enough: Callable[[], bool]) -> list[int]:
    """Several callers ask, each again and again, until it is so; the statuses of all answers, 0 for half a stream."""
    done = False

    def ask(streams: bool) -> list[int]:
        statuses = []
        with server.client() as client:
            while not done:
                answer = client.post("/v1/chat/completions", json=QUESTION | {"stream": streams})
                whole = not streams or answer.text.rstrip().endswith("data: [DONE]")
                statuses.append(answer.status_code if whole else 0)
        return statuses

    with ThreadPoolExecutor(CALLERS) as callers:
        asking = [callers.submit(ask, number % 2 == 0) for number in range(CALLERS)]
        try:
            eventually(enough)
        finally:
            done = True
        return list(itertools.chain.from_iterable(each.result() for each in asking))


def test_a_burst_brings_a_second_replica_and_quiet_takes_it_away(server: ServerProcess, demo_model: Path) -> None:
    """Six callers at a target of two for each replica make two replicas; when they leave there is one again, and when
    nobody asks at all none, until somebody does. Every request gets its whole answer."""
    server.cli("deploy", str(demo_model), "--name", "demo", "--runtime", "openvino")
    with server.client() as client:
        name = deployment(client)["id"]
        bounds = ("--min-replicas", "1", "--max-replicas", "2", "--lower-after", "10")
        told = server.cli("deployments", "update", name, *bounds, "--target", "concurrent_requests=2").stdout
        assert "has 1 to 2 replicas from now on." in told
        statuses = ask_until(server, lambda: serving(client) == 2)
        assert set(statuses) == {200}, statuses
        assert "demo has 2 of 1 to 2 replicas" in server.cli("status").stdout
        assert "concurrent_requests=2" in server.cli("deployments", "get", name).stdout
        told = [move["detail"] for move in deployment(client)["timeline"]]
        [raised] = [each for each in told if each.startswith("Replicas from now on: 2; until now 1.")]
        assert "concurrent_requests is" in raised
        eventually(lambda: serving(client) == 1)
        assert not client.get("/headrace/v1/status").json()["last_error"]

        server.cli("deployments", "update", name, "--scale-to-zero-after", "2")
        eventually(lambda: deployment(client)["state"] == "ASLEEP")
        eventually(lambda: not server.pids("headrace_engines"))
        answer = client.post("/v1/chat/completions", json=QUESTION)
        assert answer.status_code == 200, answer.text
        assert (deployment(client)["wanted_replicas"], serving(client)) == (1, 1)
