"""What a person writes for a model or a deployment: its id, or what it is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_server import ScriptedServer, google_error, serving

from headrace.cli.app import run

MODELS = "/v1beta1/projects/default/locations/us-central1/models"
DEPLOYMENTS = "/headrace/v1/deployments"


def _model(identifier: str, name: str) -> dict[str, Any]:
    full = f"projects/default/locations/us-central1/models/{identifier}"
    return {"name": full, "displayName": name, "versionId": "1"}


def _deployment(identifier: str, name: str, version: str = "1") -> dict[str, Any]:
    return {
        "id": identifier,
        "display_name": name,
        "model_id": "9",
        "model_version": version,
        "state": "READY",
        "runtime": "openvino",
        "max_model_len": 64,
        "memory_bytes": 1,
        "min_replicas": 1,
        "max_replicas": 1,
        "created_at": 1.0,
    }


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A server with models and deployments; what is not there it says as ours does."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    models = [_model("9", "river"), _model("10", "lake"), _model("11", "lake"), _model("lake-2", "a b@c")]
    pools = [_deployment("d1", "river"), _deployment("d2", "lake"), _deployment("d3", "lake", "2")]
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        for name in ("river", "lake", "sea", "river@2", "a b@c", "9@7"):
            code = "BAD_NAME" if " " in name else "MODEL_NOT_FOUND"
            for method in ("GET", "DELETE"):
                scripted.answers[f"{method} {MODELS}/{name}"] = (404, google_error(404, code, "No such model."))
        for name in ("river", "lake", "lake@2", "sea"):
            refusal = google_error(404, "DEPLOYMENT_NOT_FOUND", "No such deployment.")
            scripted.answers[f"GET {DEPLOYMENTS}/{name}"] = (404, refusal)
        scripted.answers[f"GET {MODELS}"] = (200, {"models": models})
        scripted.answers[f"GET {DEPLOYMENTS}"] = (200, {"deployments": pools})
        for model in models:
            identifier = model["name"].rpartition("/")[2]
            scripted.answers[f"GET {MODELS}/{identifier}"] = (200, model)
        scripted.answers[f"GET {MODELS}/9@2"] = (200, _model("9", "river") | {"versionId": "2"})
        scripted.answers[f"DELETE {MODELS}/9"] = (200, {"done": True})
        for pool in pools:
            scripted.answers[f"GET {DEPLOYMENTS}/{pool['id']}"] = (200, pool)
        yield scripted


@pytest.mark.parametrize(
    ("said", "meant"),
    [("river", "9"), ("river@2", "9@2"), ("9", "9"), ("a b@c", "lake-2"), (_model("9", "river")["name"], "9")],
)
def test_a_model_is_found_by_what_it_is_called(server: ScriptedServer, said: str, meant: str) -> None:
    """Its display name stands where its id does, with a version too; names may have blanks and an @ in them."""
    assert run(["models", "get", said]) == 0
    assert server.requests[-1][0].startswith(f"GET {MODELS}/{meant}")


def test_an_id_costs_one_request(server: ScriptedServer) -> None:
    """Names are looked through only where there is no such id."""
    assert run(["models", "get", "9"]) == 0
    assert len(server.requests) == 1


def test_what_changes_a_model_takes_its_name_too(server: ScriptedServer) -> None:
    """A model is deleted by its name."""
    assert run(["models", "delete", "river", "--yes"]) == 0
    assert server.requests[-1][0] == f"DELETE {MODELS}/9"


@pytest.mark.parametrize(
    ("said", "exit_code", "shown"),
    [
        ("lake", 2, ("NAME_AMBIGUOUS", "2 models have the name 'lake'", "Their ids: 10, 11.")),
        ("sea", 3, ("There is no model 'sea'", "river (9)", "lake (10)")),
        ("9@7", 3, ("No such model.",)),
    ],
)
def test_a_name_that_means_no_one_model(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], said: str, exit_code: int, shown: tuple[str, ...]
) -> None:
    """Of several the candidates are listed, of none those there are; a version that is missing is said as it was."""
    assert run(["models", "get", said]) == exit_code
    told = capsys.readouterr().err
    assert all(each in told for each in shown), told


@pytest.mark.parametrize(("said", "meant"), [("river", "d1"), ("lake@2", "d3"), ("d2", "d2")])
def test_a_deployment_is_found_by_what_it_is_called(server: ScriptedServer, said: str, meant: str) -> None:
    """Its model's name stands where its id does; with a version, where several versions are deployed."""
    assert run(["deployments", "get", said]) == 0
    assert server.requests[-1][0].startswith(f"GET {DEPLOYMENTS}/{meant}")


@pytest.mark.parametrize(
    ("said", "exit_code", "shown"),
    [("lake", 2, ("NAME_AMBIGUOUS", "2 deployments", "d2, d3")), ("sea", 3, ("river@1 (d1)", "lake@2 (d3)"))],
)
def test_a_name_that_means_no_one_deployment(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], said: str, exit_code: int, shown: tuple[str, ...]
) -> None:
    """Of several the candidates are listed, of none those there are."""
    assert run(["deployments", "get", said]) == exit_code
    told = capsys.readouterr().err
    assert all(each in told for each in shown), told
