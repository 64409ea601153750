"""Throughputs on the command line: asked for, changed, shown beside what runs for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_server import ScriptedServer, serving

from headrace.cli.app import run

SCOPE = "projects/default/locations/us-central1"
NAME = f"{SCOPE}/endpoints/7"
POOL: dict[str, Any] = {
    "id": "8",
    "display_name": "elbe",
    "model_id": "elbe",
    "model_version": "1",
    "state": "READY",
    "min_replicas": 1,
    "max_replicas": 3,
    "wanted_replicas": 2,
    "memory_bytes": 0,
    "resident_bytes": 0,
    "replicas": [{"state": "READY"}],
    "scaling": {"metric": "provisioned_work", "value": 97.4, "target": 90, "why": "It grows."},
    "pending": "1 of 2 replicas serve. The others are starting.",
}
BOUND: dict[str, Any] = {
    "id": "70",
    "traffic": 100,
    "display_name": "elbe",
    "provision": {"min_tokens_per_s": 980, "max_tokens_per_s": 1960, "chunk": 245, "model_units": 0},
    "deployment": POOL,
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server with an endpoint of which a throughput is sold."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    binding = {
        "id": "70",
        "model": f"{SCOPE}/models/elbe",
        "modelVersionId": "1",
        "displayName": "elbe",
        "headrace": {
            "state": "READY",
            "deployment": f"{SCOPE}/deployments/8",
            "throughput": {"minTokensPerS": 980, "maxTokensPerS": 1960, "chunk": 245},
        },
    }
    endpoint = {"name": NAME, "displayName": "rivers", "deployedModels": [binding], "trafficSplit": {"70": 100}}
    listed = {"id": "7", "display_name": "rivers", "deployed_models": [BOUND]}
    status = {"version": "1", "at": 0.0, "endpoints": [listed], "draining": [], "resident_bytes": 0, "nodes": []}
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        scripted.answers[f"GET /v1beta1/{SCOPE}/endpoints"] = (200, {"endpoints": [endpoint]})
        scripted.answers["GET /headrace/v1/status"] = (200, status)
        operation = {"id": "5", "state": "RUNNING"}
        scripted.answers["PATCH /headrace/v1/endpoints/7"] = (200, {"operations": [operation]})
        scripted.answers[f"GET /v1beta1/{SCOPE}/models/elbe"] = (
            200,
            {"name": f"{SCOPE}/models/elbe", "versionId": "3"},
        )
        scripted.answers[f"POST /v1beta1/{NAME}:deployModel"] = (200, {"name": f"{NAME}/operations/5"})
        scripted.answers["POST /headrace/v1/deployments"] = (
            200,
            {"id": "5", "targets": {"endpoint": "7", "deployment": "8"}},
        )
        yield scripted


def test_it_is_shown_and_changed(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What is guaranteed, what is admitted and what runs; a wish goes by a deployed model's id or name."""
    assert run(["endpoints", "throughput", "rivers"]) == 0
    out = capsys.readouterr().out
    assert all(told in out for told in ("980", "1,960", "1/2, 97 % busy", "70 waits: 1 of 2 replicas serve."))
    assert server.asked("PATCH /headrace/v1/endpoints/7") == []
    assert run(["endpoints", "throughput", "rivers", "elbe=2x:4x"]) == 0
    assert server.asked("PATCH /headrace/v1/endpoints/7") == [{"throughput": {"70": "2x:4x"}}]
    assert "headrace operations get 5 --wait" in capsys.readouterr().out
    assert run(["endpoints", "throughput", "rivers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deployed_models"][0]["provision"]["chunk"] == 245


@pytest.mark.parametrize("wish", [["70"], ["=2x"], ["70="], ["70=1x", "elbe=2x"]])
def test_wishes_that_are_none(server: ScriptedServer, wish: list[str]) -> None:
    """Refused before anything is asked to change."""
    assert run(["endpoints", "throughput", "rivers", *wish]) == 2
    assert server.asked("PATCH /headrace/v1/endpoints/7") == []


def test_status_and_get_show_what_was_sold(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside what runs for it."""
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert "rivers: 980 tokens/s guaranteed, 1,960 at most; replicas: 1/2, 97 % busy." in out
    assert "rivers waits: 1 of 2 replicas serve." in out
    assert run(["endpoints", "get", "rivers"]) == 0
    assert "70 980 tokens/s guaranteed, 1,960 at most" in capsys.readouterr().out


def test_a_deploy_asks_for_it(server: ScriptedServer, tmp_path: Path) -> None:
    """The text as it is: the server knows how large a chunk is."""
    assert run(["endpoints", "deploy", "rivers", "elbe", "--throughput", "1x:2x", "--no-wait"]) == 0
    [body] = server.asked(f"POST /v1beta1/{NAME}:deployModel")
    assert body["deployedModel"]["systemLabels"] == {"headrace-throughput": "1x:2x"}
    assert run(["deploy", str(tmp_path), "--throughput", "980:1960", "--no-wait"]) == 0
    [body] = server.asked("POST /headrace/v1/deployments")
    assert body["throughput"] == "980:1960"
