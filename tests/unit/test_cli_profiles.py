"""`headrace profiles` against a real HTTP server: what it asks and shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_server import ScriptedServer, google_error, serving

from headrace.cli.app import run

SCOPE = "projects/default/locations/us-central1"
ROOT = "/headrace/v1/profiles"
PROFILE: dict[str, Any] = {
    "id": "5",
    "model_id": "river",
    "model_version": "2",
    "runtime": "openvino",
    "hardware": "2 cores of a processor [0123]",
    "engine": "{}",
    "points": [
        {
            "prompt_tokens": 32,
            "output_tokens": 16,
            "concurrency": 4,
            "requests": 20.0,
            "wall_s": 2.0,
            "first_s": 0.25,
            "gap_s": 0.02,
        }
    ],
    "mean_error": 0.061,
    "tokens_per_s": 251.4,
    "chunk": 60,
    "stale": True,
    "stale_because": "The runtime would be vllm now; it was openvino.",
    "summary": "A replica carries 251 tokens/s.",
    "created_at": 10.0,
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server with a profile."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        scripted.answers[f"GET {ROOT}"] = (200, {"profiles": [PROFILE]})
        scripted.answers[f"GET {ROOT}/5"] = (200, PROFILE)
        scripted.answers[f"DELETE {ROOT}/5"] = (200, PROFILE)
        yield scripted


def test_the_list_tells_what_counts(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What a replica carries, by how much the fit is off, whether it still holds; of one model where it is named."""
    assert run(["profiles", "list", "--model", "river@2"]) == 0
    shown = capsys.readouterr().out
    for cell in ("river@2", "251 tokens/s", "60", "6 %", "yes"):
        assert cell in shown
    assert any("model=river%402" in line for line, _, _ in server.requests)
    server.answers[f"GET {ROOT}"] = (200, {"profiles": []})
    assert run(["profiles"]) == 0
    assert "headrace profile ENDPOINT" in capsys.readouterr().out


def test_one_is_shown_whole_and_forgotten(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """With why it is stale, what it says, and its points; forgetting asks first."""
    assert run(["profiles", "get", "5"]) == 0
    shown = capsys.readouterr().out
    assert "The runtime would be vllm now" in shown
    assert "A replica carries 251 tokens/s." in shown
    assert "100.0 ms" in shown
    assert run(["profiles", "get", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == PROFILE
    assert run(["profiles", "delete", "5"]) == 2
    assert server.asked(f"DELETE {ROOT}/5") == []
    assert run(["profiles", "delete", "5", "--yes"]) == 0
    assert "Deleted profile 5." in capsys.readouterr().out


def test_a_machine_is_for_a_version_only(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What runs already has its own; and a name that is neither is not found."""
    endpoint = {"name": f"{SCOPE}/endpoints/7", "displayName": "rivers", "deployedModels": []}
    server.answers[f"GET /v1beta1/{SCOPE}/endpoints"] = (200, {"endpoints": [endpoint]})
    assert run(["profile", "rivers", "--machine-type", "g2-standard-12"]) == 2
    assert "MODEL@VERSION" in capsys.readouterr().err
    assert run(["profile", "lakes"]) == 3


def test_what_was_deployed_for_it_is_taken_off_when_that_fails(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The endpoint of its own goes, whatever came before; one that was never made is no error."""
    server.answers[f"GET /v1beta1/{SCOPE}/endpoints"] = (200, {"endpoints": []})
    model = {"name": f"{SCOPE}/models/river", "versionId": "2"}
    server.answers[f"GET /v1beta1/{SCOPE}/models/river@2"] = (200, model)
    refused = (429, google_error(429, "QUOTA_EXCEEDED", "There is no room."))
    server.answers[f"POST /v1beta1/{SCOPE}/endpoints"] = refused
    assert run(["profile", "river@2"]) == 1
    assert "There is no room." in capsys.readouterr().err
    deleted = [line for line, _, _ in server.requests if line.startswith("DELETE")]
    assert len(deleted) == 1
    assert deleted[0].startswith(f"DELETE /v1beta1/{SCOPE}/endpoints/profile-")
    assert deleted[0].endswith("?force=true")
