"""`headrace rollouts` against a real HTTP server: what it asks, shows, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_server import ScriptedServer, serving

from headrace.cli.app import run

SCOPE = "projects/default/locations/us-central1"
ROOT = "/headrace/v1/rollouts"
SIDE = {"count": 90, "mean": 0.25}
MEASURE: dict[str, Any] = {
    "measure": "errors",
    "limit": "",
    "trials": 90,
    "bad": 1,
    "bound": 0.01,
    "evidence": 0.4213,
    "threshold": 1200.0,
    "canary": {"count": 90, "mean": 1 / 90},
    "stable": {"count": 1710, "mean": 0.0},
}
ROLLOUT: dict[str, Any] = {
    "id": "5",
    "endpoint_id": "7",
    "deployed_model_id": "70",
    "state": "RUNNING",
    "percent": 5,
    "waits_for": "90 of 100 requests.",
    "plan": {"stages": [5, 100]},
    "measures": [
        MEASURE,
        MEASURE | {"measure": "first_token", "limit": "500 ms", "canary": SIDE, "stable": {"count": 0, "mean": None}},
    ],
    "failure": None,
    "created_at": 10.0,
    "timeline": [
        {"state": "RUNNING", "at": 10.0, "detail": "", "failure": None},
        {"state": "RUNNING", "at": 12.5, "detail": "5 % from now on.", "failure": None},
    ],
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server with an endpoint that has a rollout."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        endpoint = {"name": f"{SCOPE}/endpoints/7", "displayName": "rivers", "deployedModels": []}
        scripted.answers[f"GET /v1beta1/{SCOPE}/endpoints"] = (200, {"endpoints": [endpoint]})
        scripted.answers[f"GET {ROOT}"] = (200, {"rollouts": [ROLLOUT | {"id": "4"}, ROLLOUT]})
        scripted.answers[f"GET {ROOT}/5"] = (200, ROLLOUT)
        yield scripted


def test_start_says_all_of_the_plan(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The endpoint's id by its name; what is left out is the platform's own."""
    server.answers[f"POST {ROOT}"] = (200, ROLLOUT)
    assert run(["rollouts", "start", "rivers"]) == 0
    said = ["--model", "70", "--stages", "10,100", "--min-requests", "20", "--min-seconds", "5"]
    said += ["--false-alarms", "0.001"]
    said += ["--max-error-rate", "0.02", "--max-first-token", "0.5", "--max-inter-token", "0.05", "--slow-share", "0.1"]
    assert run(["rollouts", "start", "rivers", *said, "--times-stable", "2"]) == 0
    usual, told = server.asked(f"POST {ROOT}")
    assert usual == {
        "endpoint_id": "7",
        "deployed_model_id": "",
        "stages": [5, 25, 50, 100],
        "min_requests": 100,
        "min_seconds": 60.0,
        "bounds": {
            "error_rate": 0.01,
            "first_token_s": None,
            "inter_token_s": None,
            "slow_share": 0.05,
            "times_stable": 1.5,
        },
        "false_alarms": 0.01,
        "project": "default",
        "location": "us-central1",
    }
    assert (told["deployed_model_id"], told["stages"], told["min_requests"]) == ("70", [10, 100], 20)
    assert list(told["bounds"].values()) == [0.02, 0.5, 0.05, 0.1, 2.0]
    assert "5 % of the requests go to deployed model 70" in capsys.readouterr().out
    assert run(["rollouts", "start", "rivers", "--stages", "few"]) == 2


def test_waiting_shows_what_happens_and_ends_as_it_ended(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 once it is promoted; 1 with the reason if it was rolled back, by itself or by hand."""
    server.answers[f"POST {ROOT}"] = (200, ROLLOUT)
    server.answers[f"GET {ROOT}/5"] = (200, ROLLOUT | {"state": "PROMOTED", "percent": 100, "waits_for": ""})
    assert run(["rollouts", "start", "rivers", "--wait"]) == 0
    assert "RUNNING  5 % from now on." in capsys.readouterr().out
    failure = {"code": "CANARY_OUT_OF_BOUNDS", "message": "It left its bounds.", "evidence": "3 of 3", "fix": "Mend."}
    ended = ROLLOUT | {"state": "ROLLED_BACK", "failure": failure}
    server.answers[f"GET {ROOT}/5"] = (200, ended)
    assert run(["rollouts", "start", "rivers", "--wait"]) == 1
    assert "error CANARY_OUT_OF_BOUNDS: It left its bounds." in capsys.readouterr().err
    server.answers[f"GET {ROOT}/5"] = (200, ended | {"failure": None})
    assert run(["rollouts", "start", "rivers", "--wait", "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "CANCELLED"


def test_get_shows_the_newest(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What it waits for, both sides of each measure beside what is allowed, and the timeline."""
    assert run(["rollouts", "get", "7"]) == 0
    shown = capsys.readouterr().out
    assert "RUNNING  90 of 100 requests." in shown
    (errors,) = [line for line in shown.splitlines() if line.startswith("errors")]
    assert " ".join(errors.split()) == "errors 1.1 % of 90 0 % of 1,710 1 of 90 1 % 0.421 1,200"
    (first,) = [line for line in shown.splitlines() if line.startswith("first token")]
    assert "250 ms of 90" in first
    assert "none seen" in first
    assert "+2.5 s  RUNNING  5 % from now on." in shown
    assert run(["rollouts", "get", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "5"


@pytest.mark.parametrize(("mean", "shown"), [(1.0, "100 %"), (0.995, "100 %"), (0.25, "25 %"), (0.0952, "9.5 %")])
def test_shares_of_errors_are_percents(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], mean: float, shown: str
) -> None:
    """However many of the answers were errors, a person reads a percentage, never a power of ten."""
    errors = MEASURE | {"canary": {"count": 3, "mean": mean}}
    server.answers[f"GET {ROOT}/5"] = (200, ROLLOUT | {"measures": [errors]})
    assert run(["rollouts", "get", "7"]) == 0
    assert f" {shown} of 3 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "state"),
    [("pause", "PAUSED"), ("resume", "RUNNING"), ("promote", "PROMOTED"), ("abort", "ROLLED_BACK")],
)
def test_the_newest_one_is_changed(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], command: str, state: str
) -> None:
    """By the endpoint's name; the server says what came of it."""
    server.answers[f"PATCH {ROOT}/5"] = lambda body: (200, ROLLOUT | body)
    assert run(["rollouts", command, "rivers"]) == 0
    assert server.asked(f"PATCH {ROOT}/5") == [{"state": state}]
    assert capsys.readouterr().out == f"Rollout 5 is {state}; the canary has 5 %.\n"


def test_the_list_and_an_endpoint_without_any(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The bare name lists; what never was is not found."""
    assert run(["rollouts"]) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split()[:5] == ["ROLLOUT", "ENDPOINT", "CANARY", "STATE", "TRAFFIC"]
    assert [row.split()[:4] for row in rows] == [["4", "7", "70", "RUNNING"], ["5", "7", "70", "RUNNING"]]
    server.answers[f"GET {ROOT}"] = (200, {"rollouts": []})
    assert run(["rollouts", "abort", "rivers"]) == 3
    assert "ROLLOUT_NOT_FOUND" in capsys.readouterr().err
    assert run(["rollouts", "list"]) == 0
    assert capsys.readouterr().out.startswith("No rollouts.")


def test_deploy_without_traffic(server: ScriptedServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It is said to the server, and to the person what comes next; without the option nothing is said."""
    operation = {"id": "9", "targets": {"endpoint": "7"}}
    server.answers["POST /headrace/v1/deployments"] = (200, operation)
    folder = str(tmp_path)
    assert run(["deploy", folder, "--endpoint", "7", "--no-traffic", "--no-wait"]) == 0
    assert run(["deploy", folder, "--endpoint", "7", "--no-wait"]) == 0
    with_it, without = server.asked("POST /headrace/v1/deployments")
    assert (with_it["no_traffic"], "no_traffic" in without) == (True, False)
    assert run(["deploy", folder, "--name", "rivers", "--no-traffic", "--no-wait"]) == 0
    assert "takes no traffic" in capsys.readouterr().out
