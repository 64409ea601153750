"""Deny by default: every route of every process, walked on a live server."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.app import ROUTES
from headrace.compute.shim.server import OPERATIONS
from headrace.contracts.vertex.service_accounts import read_file, sign_token
from headrace.gateway import Gateway
from headrace.resources.access import PUBLIC_ROUTES, Process
from headrace.resources.layout import Layout
from server_process import PROJECT, ServerProcess

ENGINE_ROUTES = [
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/version"),
    ("POST", "/detokenize"),
    ("POST", "/tokenize"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
]
"""As `headrace_engines.serving.app.ROUTES` has them, which `tests/engine` walks; it cannot be imported here."""


def _walk(client: httpx.Client, process: Process, routes: Iterable[tuple[str, str]]) -> None:
    walked = 0
    for method, template in routes:
        if (process, method, template) in PUBLIC_ROUTES:
            continue
        path = re.sub(r"\{[^}]*\}", "x1", template)
        answer = client.request(method, path)
        assert answer.status_code == 401, f"{process} answers {method} {path} without a key: {answer.status_code}"
        walked += 1
    assert walked


def _on_socket(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://local")


def test_control_answers_nobody(shared_server: ServerProcess, endpoint: str) -> None:
    """Every route of the control process wants a key, on its own socket and through the gateway."""
    routes = [(route.method, route.path) for route in ROUTES]
    internal = [("GET", "/internal/nodes/{id}/orders"), ("PUT", "/internal/nodes/{id}/report")]
    internal += [("PUT", "/internal/gateways/{number}/leases")]
    with _on_socket(Layout(shared_server.data_dir).control_socket) as client:
        _walk(client, Process.CONTROL, [*routes, *internal])
    with httpx.Client(base_url=shared_server.url) as client:
        _walk(client, Process.CONTROL, routes)


def test_gateway_answers_nobody(shared_server: ServerProcess, endpoint: str) -> None:
    """Every route of the gateway wants a key, on the public port and on its admin socket."""
    listed = {process: [] for process in Process}
    for route in Gateway.routes():
        listed[route.process].append((route.method, route.template))
    with httpx.Client(base_url=shared_server.url) as client:
        _walk(client, Process.GATEWAY, listed[Process.GATEWAY])
    with _on_socket(Layout(shared_server.data_dir).gateway_socket) as client:
        _walk(client, Process.GATEWAY_ADMIN, listed[Process.GATEWAY_ADMIN])


def test_the_shim_answers_nobody(shared_server: ServerProcess, endpoint: str) -> None:
    """Every operation of a shim wants its replica's nonce: without it the connection is closed unanswered."""
    [path] = Layout(shared_server.data_dir).run_dir.glob("*.shim")
    for operation in OPERATIONS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(json.dumps({"op": operation, "nonce": "guess"}).encode() + b"\n")
            assert connection.recv(100) == b"", operation
    assert shared_server.pids("headrace_engines"), "nobody could stop it"


def test_engine_answers_nobody(shared_server: ServerProcess, endpoint: str) -> None:
    """Every route of a running engine but its health wants its replica's nonce."""
    layout = Layout(shared_server.data_dir)
    [path] = layout.run_dir.glob("*.engine")
    with _on_socket(path) as client:
        _walk(client, Process.ENGINE, ENGINE_ROUTES)
        assert client.get("/nothing").status_code == 401


def test_files_and_sockets_are_private(shared_server: ServerProcess, endpoint: str) -> None:
    """Nothing that holds a secret or a socket can be read by other users."""
    layout = Layout(shared_server.data_dir)
    assert layout.data_dir.stat().st_mode & 0o777 == 0o700
    assert layout.run_dir.stat().st_mode & 0o777 == 0o700
    for path in (layout.local_login, layout.internal_token, layout.snapshot):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_internal_routes_are_not_on_the_public_port(shared_server: ServerProcess) -> None:
    """The gateway never forwards `/internal/`, not even with the internal token."""
    token = Layout(shared_server.data_dir).internal_token.read_text()
    with shared_server.client(token) as client:
        assert client.get("/internal/nodes/local/orders").status_code in {401, 404}
    with shared_server.client() as client:
        assert client.get("/internal/nodes/local/orders").status_code == 404


def _key(server: ServerProcess, role: str, project: str = PROJECT, **more: str) -> dict[str, Any]:
    with server.client() as client:
        made = client.post("/headrace/v1/keys", json={"name": f"a {role}", "project": project, "role": role, **more})
    assert made.status_code == 200, made.text
    key: dict[str, Any] = made.json()
    return key


def test_roles_and_projects(shared_server: ServerProcess, endpoint: str, demo_model: Path) -> None:
    """A viewer sees and may not predict, a predictor may not deploy, and another project's key may do nothing."""
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    deploy = {"customModel": {"gcsUri": str(demo_model)}}
    expected = {"viewer": (200, 403, 403), "predictor": (200, 200, 403)}
    for role, statuses in expected.items():
        with shared_server.client(_key(shared_server, role)["secret"]) as client:
            seen = client.get(f"/v1/{endpoint}")
            chatted = client.post(f"/v1/{endpoint}/chat/completions", json=chat)
            deployed = client.post(f"/v1/projects/{PROJECT}/locations/us-central1:deploy", json=deploy)
        assert (seen.status_code, chatted.status_code, deployed.status_code) == statuses, role
    with shared_server.client(_key(shared_server, "admin", "another")["secret"]) as client:
        assert client.get(f"/v1/{endpoint}").status_code == 403
        assert client.post(f"/v1/{endpoint}/chat/completions", json=chat).status_code == 403
        assert client.get("/v1/models").json()["data"] == []


@pytest.mark.parametrize("key_format", ["plain", "service-account"])
def test_a_revoked_key_is_refused_within_a_second(shared_server: ServerProcess, endpoint: str, key_format: str) -> None:
    """Revocation reaches the gateway within a second, for what a key signed, too; and a new key works as fast."""
    key = _key(shared_server, "predictor", format=key_format)
    with shared_server.client() as admin, shared_server.client(_shown(key)) as client:
        made = time.monotonic()
        while client.get(f"/v1/{endpoint}/models").status_code != 200:
            assert time.monotonic() - made < 1
        assert client.get(f"/v1/{endpoint}").status_code == 200
        assert admin.delete(f"/headrace/v1/keys/{key['id']}").status_code == 200
        assert client.get(f"/v1/{endpoint}").status_code == 401
        revoked = time.monotonic()
        while client.get(f"/v1/{endpoint}/models").status_code == 200:
            assert time.monotonic() - revoked < 1, "the promise is a second"
        assert client.get(f"/v1/{endpoint}/models").status_code == 401


def _shown(key: dict[str, Any]) -> str:
    """What its holder shows: the key, or what its private key signs."""
    if "secret" in key:
        return str(key["secret"])
    account = read_file(json.dumps(key["service_account"]).encode())
    assert account is not None
    return sign_token(account, now=time.time())
