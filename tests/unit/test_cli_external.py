"""``headrace deploy --external``: what the server is told, and how the key gets there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_server import ScriptedServer, serving

from headrace.cli.app import run

KEY = "sk-external-0123456789"
URL = "https://models.example.com/v1"
ASKED = ["deploy", "--external", URL, "--external-model", "big/model", "--no-wait"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedServer]:
    """A scripted server that commands talk to, and that takes a deployment."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    with serving() as server:
        monkeypatch.setenv("HEADRACE_URL", server.url)
        operation = {"id": "5", "targets": {"endpoint": "7"}, "project": "default", "location": "us-central1"}
        server.answers["POST /headrace/v1/deployments"] = (200, operation)
        yield server


def told(server: ScriptedServer) -> dict[str, Any]:
    """The one body that was sent."""
    (body,) = server.asked("POST /headrace/v1/deployments")
    assert isinstance(body, dict)
    return body


def test_the_key_comes_from_a_variable_or_a_file(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Either way it goes into the request's body and is printed nowhere."""
    monkeypatch.setenv("THEIR_KEY", KEY)
    (tmp_path / "key").write_text(f"{KEY}\n")
    for option in (["--external-key-env", "THEIR_KEY"], ["--external-key-file", str(tmp_path / "key")]):
        server.requests.clear()
        assert run([*ASKED, *option]) == 0
        assert told(server)["external"] == {"base_url": URL, "model": "big/model", "key": KEY}
        assert told(server)["artifact_uri"] == ""
    assert KEY not in "".join(capsys.readouterr())


def test_without_a_terminal_there_is_nobody_to_ask(server: ScriptedServer) -> None:
    """A server that wants no key needs no option, in scripts too."""
    assert run([*ASKED, "--json"]) == 0
    assert told(server)["external"]["key"] == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy"],
        ["deploy", "/tmp", "--external", URL, "--external-model", "m"],
        ["deploy", "--external", URL],
        ["deploy", "/tmp", "--external-model", "m"],
        [*ASKED, "--external-key-env", "NOT_SET_ANYWHERE"],
        [*ASKED, "--external-key-file", "/nowhere/key"],
        [*ASKED, "--external-key-env", "HOME", "--external-key-file", "/nowhere/key"],
    ],
)
def test_half_a_server_is_wrong_usage(
    server: ScriptedServer, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Folder and server, a server without a model, a key that is not there: told before anything is sent."""
    assert run([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "USAGE"
    assert not server.asked("POST /headrace/v1/deployments")
