"""The TLS port of a whole server: its authority, the command line through it, and a gateway that is replaced."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server_process import ServerProcess, eventually, running_server
from streams import TOKENS, read_stream

PAGE = "https://chat.example.org"


@pytest.fixture
def secure_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with a TLS port at an address of its own, for the pages of one origin."""
    tls = ("--tls-port", "0", "--tls-host", "127.0.0.2", "--tls-name", "models.example.org")
    with running_server(tmp_path / "data", *tls, "--cors-origin", PAGE) as server:
        yield server


def test_everything_works_by_tls(secure_server: ServerProcess, demo_model: Path, tmp_path: Path) -> None:
    """With the exported authority the command line and a stream use it, and the stream outlives its gateway."""
    server, authority = secure_server, tmp_path / "ca.pem"
    url = server.login["tls_url"]
    assert url.startswith("https://127.0.0.2:")
    assert url in server.output
    with pytest.raises(httpx.ConnectError):  # what is not encrypted stays where it was
        httpx.get(f"{server.url.replace('127.0.0.1', '127.0.0.2')}/healthz")
    server.cli("ca", "export", str(authority), "--data-dir", str(server.data_dir))
    server.cli("login", url, "--name", "tls", "--ca-file", str(authority), "--key", server.key)
    server.cli("deploy", str(demo_model), "--name", "river", "--context", "tls")
    assert "river" in server.cli("status", "--context", "tls").stdout
    assert server.cli("chat", "river", "-m", "Hi", "--context", "tls").stdout.strip()

    context = ssl.create_default_context(cafile=authority)
    bearer = {"Authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=url, headers=bearer, verify=context, timeout=120) as client:
        asked = client.options("/v1/models", headers={"origin": PAGE, "access-control-request-method": "GET"})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, PAGE)
        listed = client.get("/v1beta1/projects/default/locations/us-central1/endpoints").json()["endpoints"]
        name = listed[0]["name"]
        [old] = server.pids("headrace.server.gateway")
        stream = read_stream(client, name, after_chunks=5, then=lambda: os.kill(old, signal.SIGTERM))
        assert (stream.broken, stream.error, stream.done) == (None, None, True)
        assert stream.usage is not None
        assert stream.usage["completion_tokens"] == TOKENS
    with httpx.Client(base_url=url, headers=bearer, verify=context, timeout=120) as client:
        assert client.get("/v1/models").status_code == 200, "who connects is served by the next gateway"
    assert eventually(lambda: (pids := server.pids("headrace.server.gateway")) and old not in pids)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")
