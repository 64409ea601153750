"""Request logs and traces on the command line: switched on and off, and refused where they cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_server import ScriptedServer, serving

from headrace.cli.app import run
from headrace.request_log import LogFormat
from headrace.server import tracing

SCOPE = "projects/default/locations/us-central1"
CHANGE = "PATCH /headrace/v1/endpoints/7"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server with one endpoint, whose request log becomes what is asked for."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    endpoint: dict[str, Any] = {"name": f"{SCOPE}/endpoints/7", "displayName": "rivers"}

    def change(body: dict[str, Any]) -> tuple[int, Any]:
        log = body["request_log"]
        endpoint["headrace"] = (
            {}
            if log is None
            else {
                "requestLog": {
                    "samplingRate": log.get("sampling_rate", 1.0),
                    "redactFields": log.get("redact_fields", []),
                    "redactPatterns": log.get("redact_patterns", []),
                }
            }
        )
        return 200, {"id": "7", "request_log": log}

    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        scripted.answers[f"GET /v1beta1/{SCOPE}/endpoints"] = lambda _: (200, {"endpoints": [endpoint]})
        scripted.answers[CHANGE] = change
        yield scripted


@pytest.mark.parametrize(
    ("options", "body", "told"),
    [
        (["--request-log"], {}, "logs all requests."),
        (["--sampling-rate", "0.05"], {"sampling_rate": 0.05}, "logs 5 % of requests."),
        (
            ["--redact", "messages.content", "--redact", "prompt", "--redact-pattern", "[0-9]+"],
            {"redact_fields": ["messages.content", "prompt"], "redact_patterns": ["[0-9]+"]},
            "logs all requests, redacted: messages.content, prompt, /[0-9]+/.",
        ),
        (["--no-redaction"], {"redact_fields": [], "redact_patterns": []}, "logs all requests."),
        (["--no-request-log"], None, "logs no requests."),
    ],
)
def test_a_request_log_is_switched(
    server: ScriptedServer,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    body: dict[str, Any] | None,
    told: str,
) -> None:
    """What is named is sent and nothing else, and it says what holds now; `get` says so, too."""
    assert run(["endpoints", "update", "rivers", *options]) == 0
    assert server.asked(CHANGE) == [{"request_log": body}]
    assert f"Endpoint 7 {told}" in capsys.readouterr().out
    assert run(["endpoints", "get", "rivers"]) == 0
    assert ("request log" in capsys.readouterr().out) is (body is not None)


@pytest.mark.parametrize("options", [[], ["--no-request-log", "--sampling-rate", "0.5"], ["--sampling-rate", "2"]])
def test_what_means_nothing_is_not_sent(server: ScriptedServer, options: list[str]) -> None:
    """It ends as wrong usage."""
    assert run(["endpoints", "update", "rivers", *options]) == 2
    assert not server.asked(CHANGE)


def test_parquet_that_cannot_be_written_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not when the first file is closed."""
    monkeypatch.setattr(LogFormat, "available", False)
    assert run(["serve", "--data-dir", str(tmp_path), "--request-log-format", "parquet"]) == 2
    assert "headrace[parquet]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_traces_that_cannot_be_made_are_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever names a receiver without the extra is told what to install."""
    monkeypatch.setattr(tracing, "available", lambda: False)
    assert run(["serve", "--data-dir", str(tmp_path), "--otlp-traces-endpoint", "http://127.0.0.1:1"]) == 2
    told = capsys.readouterr().err
    assert "headrace[otel]" in told
    assert f"{sys.executable} -m pip" in told, "in this environment, whatever pip is first on the PATH"
    assert not list(tmp_path.iterdir())
