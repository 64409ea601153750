"""An external deployment of the real thing: our own engine, started by hand on a TCP port, stands for their server."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from server_process import ServerProcess

KEY = "sk-external-0123456789"
MODEL = "their/smollm2"
MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of Japan?"}]
SOURCE = Path(__file__).parents[2] / "src"


@contextlib.contextmanager
def their_server(model: Path, port: int) -> Iterator[None]:
    """The transformers engine on this port, ready; killed at the end of the block."""
    python = os.environ["HEADRACE_TEST_ENGINE_PYTHON"]
    command = [python, "-m", "headrace_engines.transformers", "--model", model, "--served-model-name", MODEL]
    environment = os.environ | {"HEADRACE_ENGINE_TOKEN": KEY, "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen(
        [*command, "--port", str(port), "--threads", "1", "--max-model-len", "512"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not _healthy(port):
            assert process.poll() is None, "the engine ended"
            assert time.monotonic() < deadline, "the engine did not become ready"
            time.sleep(0.1)  # another process's port: nothing to await
        yield
    finally:
        process.kill()
        process.wait()


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def await_state(server: ServerProcess, wanted: str) -> dict[str, Any]:
    """The one living deployment, once it is in this state."""
    deadline = time.monotonic() + 120
    with server.client() as client:
        while True:
            (found,) = client.get("/headrace/v1/deployments").json()["deployments"]
            if found["state"] == wanted:
                return dict(found)
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


def test_a_server_of_theirs_behind_our_gateway(server: ServerProcess, demo_model: Path, tmp_path: Path) -> None:
    """Deployed by command, streamed through OpenAI's client; away it is not ready, back it is ready by itself.

    Its key shows nowhere: not in a command line, an answer, a log; only in files of mode 0600.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
    with their_server(demo_model, port):
        said = server.cli(
            *("deploy", "--external", f"http://127.0.0.1:{port}/v1", "--external-model", MODEL),
            *("--external-key-file", str(key_file), "--name", "theirs"),
        )
        assert "READY" in said.stdout + said.stderr
        stream = client.chat.completions.create(
            model="theirs",
            messages=MESSAGES,
            temperature=0,
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        assert "Tokyo" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert len(chunks) > 5
        assert chunks[-1].usage is not None
        shown = [server.cli(*words).stdout for words in (("status",), ("deployments",), ("endpoints", "--json"))]
        assert "external" in shown[0]
    away = await_state(server, "CHECKING")
    assert away["failure"]["code"] == "EXTERNAL_UNREACHABLE"
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model="theirs", messages=MESSAGES, max_tokens=1)
    assert refused.value.code in {"EXTERNAL_UNREACHABLE", "NOT_READY"}  # the gateway hears of it a moment later
    with their_server(demo_model, port):
        back = await_state(server, "READY")
        patient = client.with_options(max_retries=5)  # as clients are by themselves: the gateway hears a moment later
        assert patient.chat.completions.create(model="theirs", messages=MESSAGES, max_tokens=1).choices
        shown.append(server.cli("deployments", "get", back["id"], "--json").stdout)
    assert KEY not in "".join([said.stdout, said.stderr, *shown])
    _check_files(server.data_dir)
    server.cli("undeploy", "theirs", "--yes")


def _check_files(data_dir: Path) -> None:
    for path in data_dir.rglob("*"):
        if path.is_file() and KEY.encode() in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path
            assert path.name.startswith(("headrace.db", "snapshot.json")), path
