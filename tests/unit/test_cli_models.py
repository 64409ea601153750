"""`headrace models` against a real HTTP server: what it asks, what it prints, how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_server import ScriptedServer, google_error, serving
from test_doctor import healthy, written

from headrace.cli.app import run

SCOPE = "projects/default/locations/us-central1"
MODELS = f"/v1beta1/{SCOPE}/models"
MODEL: dict[str, Any] = {
    "name": f"{SCOPE}/models/9",
    "displayName": "river",
    "description": "It flows.",
    "versionId": "2",
    "versionDescription": "second",
    "versionAliases": ["default", "prod"],
    "artifactUri": "gs://bkt/river",
    "labels": {"b": "2", "a": "1"},
    "containerSpec": {"imageUri": "vllm/vllm-openai:v0.11.0"},
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server that commands find by the environment, and no other login."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        yield scripted


def test_upload(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A model is registered with all that was said of it, in the login's project; or a version of one."""
    made = {"kind": "upload_model", "targets": {"model": "9", "version": "1"}}
    server.answers["POST /headrace/v1/models"] = (200, made)
    options = ["--name", "river", "--id", "nine", "--alias", "prod", "--label", "a=b=c", "--description", "It flows."]
    assert run(["models", "upload", "gs://bkt/river", *options, "--max-model-len", "64"]) == 0
    assert capsys.readouterr().out == "Model 9 has version 1, of gs://bkt/river.\n"
    assert run(["models", "upload", "gs://bkt/river", "--parent", MODEL["name"], "--description", "second"]) == 0
    first, second = server.asked("POST /headrace/v1/models")
    assert first == {
        "artifact_uri": "gs://bkt/river",
        "project": "default",
        "location": "us-central1",
        "display_name": "river",
        "model_id": "nine",
        "parent": "",
        "description": "It flows.",
        "labels": {"a": "b=c"},
        "aliases": ["prod"],
        "runtime": "",
        "max_model_len": 64,
        "dtype": "auto",
    }
    assert (second["parent"], second["version_description"], second["display_name"]) == ("9", "second", "")


def test_upload_of_a_folder(server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder is sent by its full path and gives the model its name; one that is not there is refused."""
    folder = tmp_path / "lake"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    server.answers["POST /headrace/v1/models"] = (200, {"targets": {"model": "9", "version": "1"}})
    assert run(["models", "upload", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"targets": {"model": "9", "version": "1"}}
    (body,) = server.asked("POST /headrace/v1/models")
    assert (body["artifact_uri"], body["display_name"]) == (str(folder), "lake")
    assert run(["models", "upload", str(tmp_path / "nothing")]) == 3


def test_a_folder_that_could_not_be_deployed_is_registered_and_said(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with Vertex AI nothing is refused at an upload; what the doctor finds in a folder of this machine is told."""
    folder = tmp_path / "lake"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    server.answers["POST /headrace/v1/models"] = (200, {"targets": {"model": "9", "version": "1"}})
    assert run(["models", "upload", str(folder)]) == 0
    told = capsys.readouterr()
    assert told.out == f"Model 9 has version 1, of {folder}.\n"
    assert "warning WEIGHTS_MISSING: " in told.err
    assert "deploying it would be refused" in told.err
    assert f"headrace doctor {folder}" in told.err


def test_a_whole_folder_is_registered_without_a_word(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is said of a folder of which there is nothing to say, nor of one that only the server can reach."""
    server.answers["POST /headrace/v1/models"] = (200, {"targets": {"model": "9", "version": "1"}})
    assert run(["models", "upload", written(tmp_path, healthy())]) == 0
    assert run(["models", "upload", "gs://bkt/river"]) == 0
    assert capsys.readouterr().err == ""


def test_versions(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Each version has a line: its number, its aliases, whether it is deployed."""
    old = {"versionId": "1", "artifactUri": "gs://bkt/old", "deployedModels": [{"deployedModelId": "4"}]}
    server.answers[f"GET {MODELS}/9:listVersions"] = (200, {"models": [MODEL, old]})
    assert run(["models", "versions", "9"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "VERSION ALIASES DEPLOYED DESCRIPTION ARTIFACTS",
        "2 default, prod no second gs://bkt/river",
        "1 yes gs://bkt/old",
    ]


def test_get(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that the registry knows of a version is shown."""
    server.answers[f"GET {MODELS}/9@2"] = (200, MODEL)
    assert run(["models", "get", "9@2"]) == 0
    out = capsys.readouterr().out
    for shown in ("It flows.", "second", "default, prod", "a=1, b=2", "vllm/vllm-openai:v0.11.0"):
        assert shown in out


def test_alias(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Aliases are given and taken in one request."""
    server.answers[f"POST {MODELS}/9@2:mergeVersionAliases"] = (200, MODEL)
    assert run(["models", "alias", "9@2", "prod", "default", "--remove", "old"]) == 0
    assert server.asked(f"POST {MODELS}/9@2:mergeVersionAliases") == [{"versionAliases": ["prod", "default", "-old"]}]
    assert capsys.readouterr().out == "Version 2 of 9 has the aliases: default, prod.\n"


def test_update(server: ScriptedServer) -> None:
    """A model's name and description are its own; with a version in front of it the description is the version's."""
    for model in ("9", "9@prod"):
        server.answers[f"PATCH {MODELS}/{model}"] = (200, MODEL)
    assert run(["models", "update", "9", "--name", "s", "--description", "d", "--label", "a=b"]) == 0
    assert run(["models", "update", "9@prod", "--description", "d"]) == 0
    (first, _, whole), (second, _, version) = server.requests
    assert first.endswith("?updateMask=displayName%2Cdescription%2Clabels")
    assert second.endswith("?updateMask=versionDescription")
    assert whole == {"displayName": "s", "description": "d", "labels": {"a": "b"}}
    assert version == {"versionDescription": "d"}


def test_delete(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole model, or one version of it; a refusal's code tells the exit code."""
    server.answers[f"DELETE {MODELS}/9"] = (200, {"done": True})
    refusal = google_error(400, "STILL_IN_USE", "Version 1 is deployed.", evidence="On e.")
    server.answers[f"DELETE {MODELS}/9@1:deleteVersion"] = (400, refusal)
    assert run(["models", "delete", "9", "--yes"]) == 0
    assert capsys.readouterr().out == "Deleted model 9.\n"
    assert run(["models", "delete", "9@1", "--yes"]) == 1
    assert "STILL_IN_USE" in capsys.readouterr().err
    assert run(["models", "delete", "9@1"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["upload"],
        ["upload", "gs://b/m", "--parent", "9", "--name", "x"],
        ["upload", "gs://b/m", "--label", "x"],
        ["alias", "9@2"],
        ["alias", "9", "prod"],
        ["update", "9"],
    ],
)
def test_wrong_usage(server: ScriptedServer, arguments: list[str]) -> None:
    """A command line that means nothing asks the server nothing."""
    assert run(["models", *arguments]) == 2
    assert server.requests == []
