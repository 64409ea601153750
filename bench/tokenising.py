"""What it costs to count a prompt's tokens, by its length: in the engine that counts, and in the gateway that asks.

For keys with a limit of tokens the gateway has each prompt counted by its engine's ``/tokenize`` before the request is
let through (`headrace.gateway.prompt_count`), by the tokeniser and the template that will read it. Here every request
is refused after that: its key may use two tokens a minute, which the shortest prompt and answer fit into and this one
does not. The same request with a key that may use one is refused before anybody counts. The difference is what counting
costs, from end to end and in processor time of the gateway; the engine is also asked by itself.

Real engines, deployed through the whole product, one request at a time; prompts are common English words, and each is
another one, so that no cache helps.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import psutil

from engine_client import Prompts
from report import Report, median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from headrace.resources.layout import Layout  # noqa: E402
from headrace.resources.snapshot import RoutingSnapshot  # noqa: E402
from server_process import ServerProcess, eventually, running_server  # noqa: E402 - found by the path above

RUNTIMES = ("openvino", "transformers")
REQUESTS = {1: 200, 4: 200, 16: 100, 64: 40, 256: 12}
"""By the prompt's size in kB (1,000 bytes). The longest is about what an engine with this context reads at all."""

ROUNDS = 3
MAX_MODEL_LEN = 8192
BYTES_PER_TOKEN = 4
COUNTED, REFUSED = 2, 1
"""Tokens per minute of the key whose prompts are counted, and of the one whose are not."""

COLUMNS = ("engine", "prompt kB", "tokens", "engine alone: ms", "its CPU ms", "counting, end to end: ms")
COLUMNS += ("gateway's CPU ms", "engine CPU us/kB", "gateway CPU us/kB")


class Spent(NamedTuple):
    """What one request took: from end to end, and in processor time of a family of processes; milliseconds."""

    wall_ms: float
    cpu_ms: float


class Unix(http.client.HTTPConnection):
    """A kept connection to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=120)
        self._path = path

    def connect(self) -> None:
        """Called by the first request."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def cpu_s(pids: Iterable[int]) -> float:
    """Processor time of all threads that these processes have now, as exact as the scheduler counts it."""
    total_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it ended meanwhile
                total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    root = psutil.Process(pid)
    return [root.pid, *(child.pid for child in root.children(recursive=True))]


def ask(
    connection: http.client.HTTPConnection, path: str, key: str, body: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """One request on a kept connection."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body).encode(), headers)
    answer = connection.getresponse()
    said: dict[str, Any] = json.loads(answer.read())
    return answer.status, said


def spent(requests: list[Callable[[], object]], pids: list[int]) -> Spent:
    """One request after another: the median of their times, and the mean of what they cost."""
    walls_ms, used = [], cpu_s(pids)
    for request in requests:
        began = time.perf_counter()
        request()
        walls_ms.append((time.perf_counter() - began) * 1e3)
    return Spent(median(walls_ms), (cpu_s(pids) - used) / len(requests) * 1e3)


class Bench:
    """A server with one deployment, its engine, and its two keys."""

    def __init__(self, server: ServerProcess) -> None:
        [endpoint] = msgspec.json.decode(Layout(server.data_dir).snapshot.read_bytes(), type=RoutingSnapshot).endpoints
        [deployed] = endpoint.deployed
        [replica] = deployed.replicas
        self._words = Prompts(random.randrange(10**6))
        self._served, self._nonce = deployed.served_name, replica.nonce
        self._path = f"/v1/{endpoint.scope.name('endpoints', endpoint.id)}/chat/completions"
        self._engine = Unix(replica.address.removeprefix("unix:"))
        url = httpx.URL(server.url)
        self._gateway = http.client.HTTPConnection(url.host, url.port, timeout=120)
        [gateway] = server.pids("headrace.server.gateway")
        self._gateway_pids = family(gateway)
        [shim] = server.pids("headrace.compute.shim")
        self._engine_pids = family(shim)
        self._keys = {limit: _key(server, limit, endpoint.scope.project) for limit in (COUNTED, REFUSED)}
        for limit in self._keys:
            eventually(lambda limit=limit: self._ask_gateway(limit, 1)[0] == 429)  # until the gateway knows the key

    def _messages(self, kilobytes: int) -> list[dict[str, str]]:
        text = self._words.text(kilobytes * 1000 // BYTES_PER_TOKEN * 2)[: kilobytes * 1000]
        assert len(text.encode()) == kilobytes * 1000
        return [{"role": "user", "content": text}]

    def _ask_gateway(self, limit: int, kilobytes: int) -> tuple[int, dict[str, Any]]:
        body = {"messages": self._messages(kilobytes), "max_tokens": 1}
        return ask(self._gateway, self._path, self._keys[limit], body)

    def tokens(self, kilobytes: int) -> int:
        """Of one prompt, as the engine counts it."""
        count: int = self._count(self._messages(kilobytes))
        return count

    def _count(self, messages: list[dict[str, str]]) -> int:
        status, said = ask(self._engine, "/tokenize", self._nonce, {"model": self._served, "messages": messages})
        assert status == 200, said
        count: int = said["count"]
        return count

    def alone(self, kilobytes: int, requests: int) -> Spent:
        """The engine asked by itself."""
        prompts = [self._messages(kilobytes) for _ in range(requests)]
        self._engine.close()  # it may have been idle for longer than the engine keeps it
        return spent([lambda prompt=prompt: self._count(prompt) for prompt in prompts], self._engine_pids)

    def through(self, kilobytes: int, requests: int, limit: int) -> Spent:
        """The gateway asked by the key with this limit, and what it cost the gateway."""
        bodies = [{"messages": self._messages(kilobytes), "max_tokens": 1} for _ in range(requests)]
        self._gateway.close()

        def one(body: dict[str, Any]) -> None:
            status, said = ask(self._gateway, self._path, self._keys[limit], body)
            reason = said["error"]["details"][0]["reason"]
            counted = "needs at least" not in said["error"]["message"]
            assert (status, reason, counted) == (429, "KEY_LIMIT_TOO_SMALL", limit == COUNTED), said

        return spent([lambda body=body: one(body) for body in bodies], self._gateway_pids)


def _key(server: ServerProcess, limit: int, project: str) -> str:
    options = ("--tokens-per-minute", str(limit), "--project", project, "--json")
    secret: str = json.loads(server.cli("keys", "create", f"limit-{limit}", *options).stdout)["secret"]
    return secret


def measure(report: Report, runtime: str, bench: Bench) -> None:
    """All sizes, some rounds, and the two costs of a kB in a line."""
    found: dict[int, list[tuple[Spent, Spent, Spent]]] = defaultdict(list)
    for number in range(ROUNDS):
        for kilobytes, requests in REQUESTS.items():
            print(f"{runtime}, round {number + 1} of {ROUNDS}: {kilobytes} kB", flush=True)
            counted, refused = (bench.through(kilobytes, requests, limit) for limit in (COUNTED, REFUSED))
            found[kilobytes].append((bench.alone(kilobytes, requests), counted, refused))
    each: dict[int, tuple[float, float]] = {}
    for kilobytes, rounds in found.items():
        wall_ms, cpu_ms = (median([alone[place] for alone, _, _ in rounds]) for place in (0, 1))
        added_ms, gateway_ms = (median([one[place] - two[place] for _, one, two in rounds]) for place in (0, 1))
        each[kilobytes] = cpu_ms / kilobytes * 1e3, gateway_ms / kilobytes * 1e3
        costs = [f"{ms:.2f}" for ms in (wall_ms, cpu_ms, added_ms, gateway_ms)]
        per_kb = [f"{us:.0f}" for us in each[kilobytes]]
        report.row(runtime, kilobytes, bench.tokens(kilobytes), *costs, *per_kb)
    first, last = min(each), max(each)
    report.goal(
        f"{runtime}: processor time to count a prompt, per kB of it, {first} and {last} kB",
        "; ".join(f"{who} {each[first][place]:.0f} and {each[last][place]:.0f} us" for place, who in _WHOSE),
        None,
    )


_WHOSE = ((0, "engine"), (1, "gateway"))


def main() -> None:
    """Measure, print, keep."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report("tokenising", COLUMNS)
    model = Path(os.environ["HEADRACE_TEST_MODEL"])
    before = os.getloadavg()[0]
    for runtime in RUNTIMES:
        with tempfile.TemporaryDirectory(prefix="hr-bench-") as scratch, running_server(Path(scratch) / "d") as server:
            server.cli(
                "deploy", str(model), "--name", "bench", "--runtime", runtime, "--max-model-len", str(MAX_MODEL_LEN)
            )
            measure(report, runtime, Bench(server))
    report.goal("the machine's load before it began", f"{before:.1f} on {os.cpu_count()} cores", None)
    report.finish()


if __name__ == "__main__":
    main()
