"""Rollouts on a real server under load: bad canaries go back, a good one gets everything, and it loses no request."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from server_process import LOCATION, PROJECT, ServerProcess, eventually
from standin import Script, StandIn

ROLLOUTS = "/headrace/v1/rollouts"
BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Count from one upwards, in words."}],
    "temperature": 0,
    "max_tokens": 8,
}
PATIENCE_S = 120.0


class Load:
    """Asks again and again from several threads, most of them for streams, each request once.

    Attributes:
        whole: Answers that came to their end.
        lost: What became of those that did not.
    """

    def __init__(self, server: ServerProcess, endpoint: str) -> None:
        self.whole, self.lost = 0, list[str]()
        self._url = f"/v1/{endpoint}/chat/completions"
        self._client = server.client()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(stream,)) for stream in (True, False, True)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _ask(self, stream: bool) -> None:
        while not self._over.is_set():
            became = self._one(stream)
            with self._lock:
                self.whole += not became
                self.lost += [became] if became else []

    def _one(self, stream: bool) -> str:
        """What went wrong; empty if nothing did."""
        try:
            answer = self._client.post(self._url, json=BODY | {"stream": stream})
        except httpx.TransportError as error:
            return repr(error)
        if answer.status_code != 200 or (stream and not answer.text.endswith("data: [DONE]\n\n")):
            return f"{answer.status_code} {answer.text[-300:]}"
        return ""


@contextmanager
def scripted_engine() -> Iterator[StandIn]:
    """A stand-in engine on a loopback port, in a thread of its own; its script may be changed at any time."""
    loop, ready, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    made: list[StandIn] = []

    async def serve() -> None:
        async with StandIn() as engine:
            made.append(engine)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield made[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def deploy_external(server: ServerProcess, endpoint_id: str, engine: StandIn) -> None:
    """Put it beside what is on the endpoint, without traffic."""
    body = {
        "external": {"base_url": f"{engine.address}/v1", "model": engine.name},
        "endpoint_id": endpoint_id,
        "project": PROJECT,
        "no_traffic": True,
    }
    with server.client() as client:
        answer = client.post("/headrace/v1/deployments", json=body)
    assert answer.status_code == 200, answer.text
    operation = server.await_operation(answer.json()["name"])
    assert "response" in operation, operation


def start(server: ServerProcess, endpoint_id: str, **plan: Any) -> str:
    """Begin a rollout of the newest deployed model that has no traffic; its id."""
    body = {"endpoint_id": endpoint_id, "project": PROJECT, "min_requests": 10, "min_seconds": 0.5} | plan
    with server.client() as client:
        answer = client.post(ROLLOUTS, json=body)
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["id"]
    return identifier


def look(server: ServerProcess, rollout_id: str) -> dict[str, Any]:
    """The rollout, or nothing while control is away."""
    with server.client() as client:
        answer = client.get(f"{ROLLOUTS}/{rollout_id}")
    found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    return found


def ended(server: ServerProcess, rollout_id: str) -> dict[str, Any]:
    """The rollout, once it has ended."""

    def over() -> dict[str, Any] | None:
        found = look(server, rollout_id)
        return found if found.get("state") in {"PROMOTED", "ROLLED_BACK"} else None

    found: dict[str, Any] = eventually(over, timeout_s=PATIENCE_S)
    return found


def traffic(server: ServerProcess) -> list[int]:
    """Of the deployed models, the oldest first."""
    with server.client() as client:
        (endpoint,) = client.get("/headrace/v1/endpoints").json()["endpoints"]
    return [each["traffic"] for each in endpoint["deployed_models"]]


def test_bad_canaries_go_back_and_a_good_one_gets_everything(server: ServerProcess, demo_model: Path) -> None:
    """One that fails and one that is slow are rolled back; then the next version is promoted although control is killed
    in the middle of it, and of all requests meanwhile none is lost."""
    endpoint = server.deployed(demo_model)
    endpoint_id = endpoint.rsplit("/", 1)[1]
    with scripted_engine() as engine, Load(server, endpoint) as load:
        deploy_external(server, endpoint_id, engine)
        engine.script = Script(die_after=0)
        failing = ended(server, start(server, endpoint_id, stages=[20, 100]))
        assert (failing["state"], failing["failure"]["code"]) == ("ROLLED_BACK", "CANARY_OUT_OF_BOUNDS"), failing
        assert "requests failed, where 1 % may" in failing["failure"]["message"]
        assert traffic(server) == [100, 0]

        engine.script = Script(delay_ms=500)
        slow = ended(server, start(server, endpoint_id, stages=[20, 100], bounds={"first_token_s": 0.4}))
        assert (slow["state"], slow["failure"]["code"]) == ("ROLLED_BACK", "CANARY_OUT_OF_BOUNDS"), slow
        assert "streams took longer to begin than 400 ms" in slow["failure"]["message"]
        assert traffic(server) == [100, 0]

        where = ("--project", PROJECT, "--location", LOCATION)
        server.cli("deploy", str(demo_model), "--endpoint", endpoint_id, "--no-traffic", *where)
        lost_before, whole_before = len(load.lost), load.whole
        loose = {"times_stable": 50.0}  # two engines share two cores here: nothing is to be learned of their pace
        good = start(server, endpoint_id, stages=[20, 50, 100], bounds=loose)
        eventually(lambda: look(server, good).get("stage", 0) >= 1, timeout_s=PATIENCE_S)
        for pid in server.pids("headrace.server.control"):
            os.kill(pid, signal.SIGKILL)
        promoted = ended(server, good)
        assert promoted["state"] == "PROMOTED", promoted
        assert traffic(server) == [0, 0, 100]
        answered = load.whole
        eventually(lambda: load.whole >= answered + 5)
        assert load.lost[lost_before:] == []
        assert load.whole - whole_before >= 3 * 10, "each stage had its requests"
    told = server.cli("rollouts", "get", endpoint_id, *where).stdout
    assert "PROMOTED" in told
    assert "50 % passed" in told
