"""A throughput that is sold on a real server: carried by its replicas, and changed in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec

from headrace.capacity.units import tokens_per_s
from headrace.resources.profiles import Carried, Provision
from known_profile import keep_known_profile
from server_process import ServerProcess, eventually

QUESTION = {"model": "demo", "messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 16}


def deployment(client: httpx.Client) -> dict[str, Any]:
    """The one that there is."""
    (listed,) = client.get("/headrace/v1/deployments").json()["deployments"]
    found: dict[str, Any] = client.get(f"/headrace/v1/deployments/{listed['id']}").json()
    return found


def serving(client: httpx.Client) -> int:
    """How many replicas take requests."""
    return sum(each["state"] == "READY" for each in deployment(client)["replicas"])


def sold(client: httpx.Client) -> Provision:
    """What the one deployed model was sold."""
    (endpoint,) = client.get("/headrace/v1/endpoints").json()["endpoints"]
    (deployed,) = endpoint["deployed_models"]
    return msgspec.convert(deployed["provision"], Provision)


def test_a_throughput_is_sold_carried_and_changed_in_place(server: ServerProcess, demo_model: Path) -> None:
    """One chunk is one replica; a chunk more than that carries makes a second one where there are cores for it, without
    a restart of the first; one again makes it go."""
    server.cli("deploy", str(demo_model), "--name", "demo", "--runtime", "openvino", "--throughput", "1x:2x")
    with server.client() as client:
        first = sold(client)
        assert (first.min_tokens_per_s, first.max_tokens_per_s) == (first.chunk, 2 * first.chunk)
        found = deployment(client)
        assert (found["state"], found["min_replicas"], found["max_replicas"]) == ("READY", 1, 1)
        [before] = [each["id"] for each in found["replicas"] if each["state"] == "READY"]
        assert client.post("/v1/chat/completions", json=QUESTION).status_code == 200
        assert "tokens/s guaranteed" in server.cli("status").stdout

        of_chunk = keep_known_profile(client, found["id"], cores=1)["chunk"]
        found = deployment(client)
        one_carries = int(tokens_per_s(msgspec.convert(found["carried"], Carried)))
        more = (one_carries // of_chunk + 1) * of_chunk
        told = server.cli("endpoints", "throughput", "demo", f"demo={more}").stdout
        assert "It holds once replicas are there" in told
        eventually(lambda: serving(client) == 2)
        eventually(lambda: sold(client).min_tokens_per_s == more)
        assert client.post("/v1/chat/completions", json=QUESTION).status_code == 200

        server.cli("endpoints", "throughput", "demo", "demo=1x:2x")
        eventually(lambda: serving(client) == 1)
        assert [each["id"] for each in deployment(client)["replicas"] if each["state"] == "READY"] == [before]
        assert client.post("/v1/chat/completions", json=QUESTION).status_code == 200
