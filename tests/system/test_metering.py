"""Usage under `kill -9`: what clients saw whole is in the sums, once."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import httpx

from server_process import PROJECT, ServerProcess, eventually

TOKENS = 8
BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Count from one upwards, in words."}],
    "temperature": 0,
    "max_tokens": TOKENS,
    "ignore_eos": True,
}
KILLS = 3


class Clients:
    """Asks again and again from several threads, and counts what came of it.

    Attributes:
        whole: Answers that came to their end.
        cut: Answers that did not, and requests that got none: the gateway may have written them down, or not.
    """

    def __init__(self, server: ServerProcess, endpoint: str, key: str) -> None:
        self.whole = self.cut = 0
        self._url = f"/v1/{endpoint}/chat/completions"
        self._client = server.client(key)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(stream,)) for stream in (True, False, True)]

    def __enter__(self) -> Clients:
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
            whole = self.one(stream=stream) is not None
            with self._lock:
                self.whole += whole
                self.cut += not whole

    def one(self, *, stream: bool) -> dict[str, Any] | None:
        """The usage that an answer tells; None if it did not come to its end."""
        body = BODY | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})
        try:
            answer = self._client.post(self._url, json=body)
        except httpx.TransportError:
            return None
        if answer.status_code != 200 or (stream and not answer.text.endswith("data: [DONE]\n\n")):
            return None
        told = json.loads(answer.text.split("data: ")[-2]) if stream else answer.json()
        usage: dict[str, Any] = told["usage"]
        return usage


def test_what_clients_saw_is_counted_once(server: ServerProcess, demo_model: Path) -> None:
    """Gateway and control are killed under load: each answer that a client saw whole is in the sums with its tokens,
    and nothing is in them twice. Of the requests that a kill cut, some may be in them, whole."""
    endpoint = server.deployed(demo_model)
    key = server_key(server)
    clients = Clients(server, endpoint, key["secret"])
    usage = eventually(lambda: clients.one(stream=False))  # the gateway hears of the key within a second
    assert usage["completion_tokens"] == TOKENS
    with clients:
        for kind in ("headrace.server.gateway", "headrace.server.control") * KILLS:
            answered(clients, 2)
            os.kill(one_process(server, kind), signal.SIGKILL)
        answered(clients, 2)
    segments = server.data_dir / "gateway" / "usage"
    eventually(lambda: len(list(segments.glob("*.usage"))) <= 1)  # those of the gateways that were killed are taken in
    whole = clients.whole + 1
    found = eventually(lambda: (one := counted(server, key["id"])) and finished(one) >= whole and one)
    assert finished(found) <= whole + clients.cut
    assert found["prompt_tokens"] == finished(found) * usage["prompt_tokens"], "exact, each of them once"
    assert 0 <= found["completion_tokens"] - finished(found) * TOKENS <= found["unfinished"] * TOKENS


def server_key(server: ServerProcess) -> dict[str, Any]:
    """A key of its own, so that nobody else's requests are among its sums."""
    with server.client() as admin:
        body = {"name": "metered", "project": PROJECT, "role": "predictor"}
        made: dict[str, Any] = admin.post("/headrace/v1/keys", json=body).json()
    return made


def answered(clients: Clients, more: int) -> None:
    """Wait until so many more answers came whole."""
    before = clients.whole
    eventually(lambda: clients.whole >= before + more)


def one_process(server: ServerProcess, kind: str) -> int:
    """The process of this kind, once there is just one."""
    pid: int = eventually(lambda: pids[0] if len(pids := server.pids(kind)) == 1 else 0)
    return pid


def finished(found: dict[str, Any]) -> int:
    """How many requests got a whole answer."""
    return int(found["requests"] - found["unfinished"])


def counted(server: ServerProcess, key_id: str) -> dict[str, Any] | None:
    """The sums of one key, if control is there to ask and knows any."""
    with server.client() as client:
        answer = client.get("/headrace/v1/usage", params={"by": "key", "project": PROJECT})
    rows = answer.json()["usage"] if answer.is_success else []
    return next((row for row in rows if row["key_id"] == key_id), None)
