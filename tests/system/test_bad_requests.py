"""Bad requests get a clear error in the contract's shape, never a 5xx, and change nothing."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server_process import LOCATION, PROJECT, ServerProcess

DEPLOY = f"/v1beta1/projects/{PROJECT}/locations/{LOCATION}:deploy"
BAD: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "unknown path": ("GET", "/v1/projects/p/nowhere", {}, 404, "UNKNOWN_PATH"),
    "wrong method": ("PUT", DEPLOY, {"json": {}}, 405, "METHOD_NOT_ALLOWED"),
    "not JSON": ("POST", DEPLOY, {"content": b"{"}, 400, "BAD_JSON"),
    "no model": ("POST", DEPLOY, {"json": {}}, 400, "BAD_FIELD"),
    "unknown field": ("POST", DEPLOY, {"json": {"customModel": {"gcsUri": "/x"}, "modell": 1}}, 400, "BAD_FIELD"),
    "wrong type": ("POST", DEPLOY, {"json": {"customModel": {"gcsUri": 7}}}, 400, "BAD_FIELD"),
    "half a machine": (
        "POST",
        DEPLOY,
        {
            "json": {
                "customModel": {"gcsUri": "/x"},
                "deployConfig": {"dedicatedResources": {"machineSpec": {"acceleratorType": "NVIDIA_L4"}}},
            }
        },
        400,
        "MACHINE_SPEC_INCOMPLETE",
    ),
    "no such endpoint": (
        "GET",
        f"/v1/projects/{PROJECT}/locations/{LOCATION}/endpoints/7",
        {},
        404,
        "ENDPOINT_NOT_FOUND",
    ),
    "no such endpoint to ask": (
        "POST",
        f"/v1/projects/{PROJECT}/locations/{LOCATION}/endpoints/7:predict",
        {"json": {"instances": [{"prompt": "x"}]}},
        404,
        "ENDPOINT_NOT_FOUND",
    ),
    "no such operation": (
        "GET",
        f"/v1/projects/{PROJECT}/locations/{LOCATION}/operations/7",
        {},
        404,
        "OPERATION_NOT_FOUND",
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_named(shared_server: ServerProcess, mistake: str) -> None:
    """Each mistake has its status, its code and a sentence, in Google's error shape."""
    method, path, content, status, code = BAD[mistake]
    with shared_server.client() as client:
        answer = client.request(method, path, **content)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == status
    assert error["message"]
    assert error["details"][0]["reason"] == code


def test_a_body_over_the_limit(shared_server: ServerProcess, endpoint: str) -> None:
    """A body over the limit is refused by its length, before it is read."""
    host, _, port = shared_server.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.putrequest("POST", f"/v1/{endpoint}/chat/completions")
    connection.putheader("Authorization", f"Bearer {shared_server.key}")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders(b"{")
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.load(answer)["error"]["details"][0]["reason"] == "BODY_TOO_LARGE"


def test_an_engines_refusal_reaches_the_caller(shared_server: ServerProcess, endpoint: str) -> None:
    """What the engine refuses (a context that is too long) comes back as the caller's 400, with the numbers."""
    with shared_server.client() as client:
        body = {"instances": [{"prompt": "word " * 20_000, "max_tokens": 5}]}
        answer = client.post(f"/v1/{endpoint}:predict", json=body)
    assert answer.status_code == 400
    assert "token" in answer.json()["error"]["message"]


def test_a_client_that_hangs_up_frees_the_engine(shared_server: ServerProcess, endpoint: str) -> None:
    """A client that leaves in the middle of a stream stops the engine's work: it can drain at once."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "ignore_eos": True, "max_tokens": 1500}
    with shared_server.client() as client:
        with client.stream("POST", f"/v1/{endpoint}/chat/completions", json=body) as response:
            next(response.iter_lines())
        answer = client.post(f"/v1/{endpoint}/chat/completions", json={**body, "stream": False, "max_tokens": 2})
    assert answer.status_code == 200


def test_a_disk_that_fills(tmp_path: Path, demo_model: Path) -> None:
    """Weights that do not fit the disk fail with DISK_FULL before a byte is copied, and the server stays well.

    The data directory is a small file system of its own, in a mount namespace that ends with the server.
    """
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    program = Path(__file__).parent / "small_disk.py"
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        sys.executable,
        str(program),
        str(data_dir),
        str(demo_model),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
