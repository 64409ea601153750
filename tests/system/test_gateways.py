"""`headrace serve --gateways 2` with a real engine: two processes that are one server to whoever asks."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from headrace.resources.layout import Layout
from server_process import PROJECT, ServerProcess, eventually, running_server
from streams import TOKENS, read_stream, whole_text

LIMIT, CALLERS, CAP = 250, 50, 12
CHAT = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}], "max_tokens": CAP}
WAYS = 64
"""Connections: the kernel deals them out by their ports, and none of two gateways goes without one of so many."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two gateways."""
    with running_server(tmp_path_factory.mktemp("pair") / "data", "--gateways", "2") as server:
        yield server


@pytest.fixture(scope="module")
def served(pair: ServerProcess, demo_model: Path) -> str:
    """Name of an endpoint of it that serves the demo model."""
    return pair.deployed(demo_model, modelConfig={"modelDisplayName": "smollm2"})


def gateway(server: ServerProcess, number: int) -> int:
    """The process in the place of this number."""
    words = ("headrace.server.gateway", f"--number {number} ")
    pid: int = eventually(lambda: pids[0] if len(pids := server.pids(*words)) == 1 else 0)
    return pid


def connections_of(pid: int) -> set[str]:
    """Inodes of a process's sockets."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(entry)))
        except OSError:
            continue
    return found


@contextmanager
def way_to(server: ServerProcess, number: int) -> Iterator[httpx.Client]:
    """A client whose one connection is to this gateway."""
    pid = gateway(server, number)
    for _ in range(WAYS):
        with server.client() as client:
            port = _port_of(client)
            if _inode(httpx.URL(server.url).port or 0, port) in connections_of(pid):
                yield client
                return
    raise AssertionError(f"none of {WAYS} connections came to gateway {number}")


def _port_of(client: httpx.Client) -> int:
    """The client's own port, of its one connection."""
    with client.stream("GET", "/healthz") as answer:
        port: int = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        answer.read()
    return port


def _inode(own: int, peer: int) -> str:
    """Of the server's socket of a connection on the loopback interface."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{own:04X}") and fields[2].endswith(f":{peer:04X}"):
            return fields[9]
    return ""


def test_a_keys_limit_holds_over_both(pair: ServerProcess, served: str) -> None:
    """50 callers, each by a connection of its own, share it to the token, whichever gateway they come to."""
    path, limits = f"/v1/{served}/chat/completions", ("--tokens-per-minute", str(LIMIT))
    made = json.loads(pair.cli("keys", "create", "limited", *limits, "--project", PROJECT, "--json").stdout)

    def ask(_: int = 0) -> httpx.Response:
        with pair.client(made["secret"]) as client:
            return client.post(path, json=CHAT)

    eventually(lambda: ask().status_code == 200)
    began = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(ask, range(CALLERS)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 429}, statuses
    used = [answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200]
    if time.monotonic() - began < 60:
        assert 0 < sum(used) <= LIMIT
    told = pair.cli("keys", "update", made["id"], "--tokens-per-minute", "0").stdout
    assert "has no limits" in told


def test_one_of_two_gateways_is_killed(pair: ServerProcess, served: str) -> None:
    """Requests go on, and the other one's streams end whole; the next process takes its place."""
    victim = gateway(pair, 0)
    with way_to(pair, 1) as client, pair.client() as others:
        expected = whole_text(client, served)

        def kill() -> None:
            os.kill(victim, signal.SIGKILL)

        stream = read_stream(client, served, after_chunks=5, then=kill)
        assert (stream.broken, stream.error, stream.done) == (None, None, True)
        assert stream.text == expected
        assert whole_text(others, served) == expected, "no connection was refused: the supervisor holds the sockets"
    assert eventually(lambda: gateway(pair, 0) != victim)
    with way_to(pair, 0) as client:
        assert whole_text(client, served) == expected


def test_a_gateway_that_is_told_to_go_finishes_its_stream(pair: ServerProcess, served: str) -> None:
    """While the one in its place takes what comes; nobody stops the engine that it still needs."""
    victim = gateway(pair, 1)
    with way_to(pair, 1) as client:
        stream = read_stream(client, served, after_chunks=5, then=lambda: os.kill(victim, signal.SIGTERM))
    assert (stream.broken, stream.error, stream.done) == (None, None, True)
    assert stream.usage is not None
    assert stream.usage["completion_tokens"] == TOKENS
    assert eventually(lambda: gateway(pair, 1) != victim)


def test_each_gateway_is_private_and_all_are_shown(pair: ServerProcess, served: str) -> None:
    """Both have an admin socket that wants the internal token; the public port's metrics are those of both."""
    layout = Layout(pair.data_dir)
    for number in (0, 1):
        transport = httpx.HTTPTransport(uds=str(layout.gateway_socket_of(number)))
        with httpx.Client(transport=transport, base_url="http://gateway") as client:
            assert client.get("/status").status_code == 401
    with pair.client() as client:
        shown = eventually(lambda: (text := client.get("/metrics").text).count("headrace_gateway_up{") == 2 and text)
    assert 'headrace_gateway_up{gateway="0"} 1.0' in shown
    assert 'headrace_gateway_up{gateway="1"} 1.0' in shown
