"""Endpoints on the command line: made, renamed, their traffic shared out, and emptied without a share that is lost."""

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


def bound(own: str, model: str, state: str = "READY", **more: Any) -> dict[str, Any]:
    """A deployed model in Vertex AI's shape."""
    headrace = {"state": state, "deployment": f"{SCOPE}/deployments/{own}", **more}
    return {
        "id": own,
        "model": f"{SCOPE}/models/{model}",
        "modelVersionId": "1",
        "displayName": model,
        "headrace": headrace,
    }


@pytest.fixture
def endpoint() -> dict[str, Any]:
    """What the server has."""
    return {
        "name": NAME,
        "displayName": "rivers",
        "labels": {"team": "a"},
        "deployedModels": [bound("70", "elbe"), bound("71", "oder"), bound("72", "main")],
        "trafficSplit": {"70": 60, "71": 40, "72": 0},
    }


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: dict[str, Any]) -> Iterator[ScriptedServer]:
    """A scripted server with that endpoint, which becomes what is asked for."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")

    def patch(body: dict[str, Any]) -> tuple[int, Any]:
        endpoint.update(body)
        return 200, endpoint

    def split(body: dict[str, Any]) -> tuple[int, Any]:
        endpoint["trafficSplit"] = body["traffic"]
        return 200, {}

    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        scripted.answers[f"GET /v1beta1/{SCOPE}/endpoints"] = lambda _: (200, {"endpoints": [endpoint]})
        scripted.answers[f"GET /v1beta1/{NAME}"] = lambda _: (200, endpoint)
        scripted.answers[f"POST /v1beta1/{SCOPE}/endpoints"] = (200, {"name": "op", "response": {"name": NAME}})
        scripted.answers[f"PATCH /v1beta1/{NAME}"] = patch
        scripted.answers["PATCH /headrace/v1/endpoints/7"] = split
        scripted.answers[f"GET /v1beta1/{SCOPE}/models/elbe"] = (
            200,
            {"name": f"{SCOPE}/models/elbe", "versionId": "3"},
        )
        scripted.answers[f"POST /v1beta1/{NAME}:deployModel"] = (200, {"name": f"{NAME}/operations/5"})
        scripted.answers[f"POST /v1beta1/{NAME}:undeployModel"] = (200, {"name": f"{NAME}/operations/5"})
        operation = {"id": "5", "state": "SUCCEEDED", "done": True, "project": "default", "location": "us-central1"}
        operation |= {"targets": {"endpoint": "7", "deployment": "8"}, "timeline": []}
        scripted.answers["GET /headrace/v1/operations/5"] = (200, operation)
        yield scripted


def test_create(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An id goes into the query, all else into the body; what to do next is told."""
    assert run(["endpoints", "create", "rivers", "--id", "own", "--label", "team=a", "--description", "Mine."]) == 0
    assert f"POST /v1beta1/{SCOPE}/endpoints?endpointId=own" in [line for line, _, _ in server.requests]
    assert server.asked(f"POST /v1beta1/{SCOPE}/endpoints") == [
        {
            "displayName": "rivers",
            "dedicatedEndpointEnabled": True,
            "description": "Mine.",
            "labels": {"team": "a"},
        }
    ]
    assert "headrace deploy FOLDER --endpoint 7" in capsys.readouterr().out
    assert run(["endpoints", "create", "rivers", "--shared", "--json"]) == 0
    assert server.asked(f"POST /v1beta1/{SCOPE}/endpoints")[1]["dedicatedEndpointEnabled"] is False
    assert json.loads(capsys.readouterr().out)["name"] == NAME


def test_update_names_what_changes(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The mask names it, labels are added to those that are there, and an empty one goes."""
    assert run(["endpoints", "update", "rivers", "--name", "streams", "--label", "tier=1", "--label", "team="]) == 0
    assert f"PATCH /v1beta1/{NAME}?updateMask=displayName%2Clabels" in [line for line, _, _ in server.requests]
    assert server.asked(f"PATCH /v1beta1/{NAME}") == [{"displayName": "streams", "labels": {"tier": "1"}}]
    assert "is 'streams'" in capsys.readouterr().out
    assert run(["endpoints", "update", "streams", "--description", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["description"] == "x"


@pytest.mark.parametrize("shares", [["70=90", "72=10"], ["elbe=90", "main@1=10"]])
def test_traffic(server: ScriptedServer, capsys: pytest.CaptureFixture[str], shares: list[str]) -> None:
    """Shares by deployed model, or by its model's name; without any it shows how the requests are shared out."""
    assert run(["endpoints", "traffic", "rivers"]) == 0
    assert "60 %" in capsys.readouterr().out
    assert run(["endpoints", "traffic", "rivers", *shares]) == 0
    assert server.asked("PATCH /headrace/v1/endpoints/7") == [{"traffic": {"70": 90, "72": 10}}]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-2] for line in lines if line.endswith("%")] == ["90", "0", "10"]


@pytest.mark.parametrize(
    "shares", [["70"], ["70=x"], ["=5"], ["70=101"], ["70=-1"], ["70=50", "elbe=50"], ["70=1.5", "71=98.5"]]
)
def test_shares_that_are_none(server: ScriptedServer, shares: list[str]) -> None:
    """Refused before anything is asked to change."""
    assert run(["endpoints", "traffic", "rivers", *shares]) == 2
    assert server.asked("PATCH /headrace/v1/endpoints/7") == []


def test_shares_of_strangers(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A deployed model that the endpoint does not have ends with those that it has."""
    assert run(["endpoints", "traffic", "rivers", "99=100"]) == 3
    assert "70 (elbe@1)" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["team", "=a"])
def test_labels_that_are_none(server: ScriptedServer, label: str) -> None:
    """Refused with how one is written."""
    assert run(["endpoints", "create", "x", "--label", label]) == 2
    assert run(["endpoints", "update", "rivers", "--label", label]) == 2


@pytest.mark.parametrize(
    ("options", "split"),
    [
        ([], {"0": 100, "70": 0, "71": 0, "72": 0}),
        (["--traffic", "20"], {"0": 20, "70": 48, "71": 32, "72": 0}),
        (["--traffic", "0"], None),
    ],
)
def test_deploy_a_registered_model(server: ScriptedServer, options: list[str], split: dict[str, int] | None) -> None:
    """The version that the name means now, with a share that leaves the others their proportions; 0 leaves them all."""
    assert run(["endpoints", "deploy", "rivers", "elbe", "--replicas", "2", "--own", "--json", *options]) == 0
    [body] = server.asked(f"POST /v1beta1/{NAME}:deployModel")
    assert body.get("trafficSplit") == split
    deployed = body["deployedModel"]
    assert deployed["model"] == f"{SCOPE}/models/elbe@3"
    assert deployed["dedicatedResources"]["minReplicaCount"] == 2
    assert deployed["systemLabels"] == {"headrace-deployment": "own"}


def test_the_first_on_an_endpoint_gets_all(
    server: ScriptedServer, endpoint: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever share was asked for: nobody else could have the rest."""
    endpoint |= {"deployedModels": [], "trafficSplit": {}}
    assert run(["endpoints", "deploy", "rivers", "elbe", "--traffic", "20", "--no-wait"]) == 0
    [body] = server.asked(f"POST /v1beta1/{NAME}:deployModel")
    assert (body["trafficSplit"], "systemLabels" in body["deployedModel"]) == ({"0": 100}, False)
    assert "operation 5" in capsys.readouterr().out


def undeployed(server: ScriptedServer) -> list[Any]:
    """What was asked to be undeployed, in order."""
    return server.asked(f"POST /v1beta1/{NAME}:undeployModel")


def test_undeploy_says_who_gets_the_traffic(server: ScriptedServer) -> None:
    """The share of one goes to the others in proportion; one without traffic needs no word of it."""
    assert run(["undeploy", "rivers", "--model", "oder", "--yes", "--json"]) == 0
    assert undeployed(server) == [{"deployedModelId": "71", "trafficSplit": {"70": 100, "72": 0}}]
    assert run(["undeploy", "rivers", "--model", "main", "--yes", "--json"]) == 0
    assert undeployed(server)[1] == {"deployedModelId": "72"}


def test_undeploy_of_all_begins_with_what_nobody_asks(server: ScriptedServer) -> None:
    """Each hands its share to those that are left; the last one just goes."""
    assert run(["undeploy", "rivers", "--keep-endpoint", "--yes", "--json"]) == 0
    assert undeployed(server) == [
        {"deployedModelId": "72"},
        {"deployedModelId": "71", "trafficSplit": {"70": 100}},
        {"deployedModelId": "70"},
    ]


def test_what_goes_already_gets_no_share(server: ScriptedServer, endpoint: dict[str, Any]) -> None:
    """A deployed model that drains is nobody to give traffic to."""
    endpoint["deployedModels"][2]["headrace"]["state"] = "DRAINING"
    assert run(["undeploy", "rivers", "--model", "70", "--yes", "--json"]) == 0
    assert undeployed(server) == [{"deployedModelId": "70", "trafficSplit": {"71": 100}}]


def test_get_tells_who_shares(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], endpoint: dict[str, Any]
) -> None:
    """An endpoint shows its description, and with whom a deployed model's engines are shared."""
    endpoint["description"] = "For tests."
    endpoint["deployedModels"][0] = bound("70", "elbe", sharedWith=[f"{SCOPE}/endpoints/9"])
    assert run(["endpoints", "get", "rivers"]) == 0
    out = capsys.readouterr().out
    assert "70 with 9: one deployment" in out
    assert "For tests." in out
