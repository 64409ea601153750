"""`headrace usage` against a real HTTP server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cli_server import ScriptedServer, serving

from headrace.cli.app import run

ROW: dict[str, Any] = {
    "key_id": "12",
    "key_name": "ci",
    "endpoint_id": "7",
    "endpoint_name": "rivers",
    "model_id": "9",
    "model_name": "lake",
    "model_version": "1",
    "requests": 1200,
    "unfinished": 3,
    "inexact": 0,
    "prompt_tokens": 34000,
    "completion_tokens": 560,
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server that commands talk to."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        yield scripted


def answer(server: ScriptedServer, *rows: dict[str, Any], by: tuple[str, ...] = ("key", "endpoint", "model")) -> None:
    """Have the server say this."""
    server.answers["GET /headrace/v1/usage"] = (200, {"from": 0, "to": 3600, "by": by, "usage": rows})


def test_usage_is_a_table(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Names where there are any, else ids; a lower bound is marked as one."""
    answer(server, ROW, ROW | {"key_name": "", "inexact": 1})
    assert run(["usage"]) == 0
    heads, first, second, _, remark = capsys.readouterr().out.splitlines()
    assert heads.split() == [
        "KEY",
        "ENDPOINT",
        "MODEL",
        "REQUESTS",
        "UNFINISHED",
        *["PROMPT", "TOKENS"],
        *["OUTPUT", "TOKENS"],
    ]
    assert first.split() == ["ci", "rivers", "lake@1", "1,200", "3", "34,000", "560"]
    assert second.split() == ["12", "rivers", "lake@1", "1,200", "3", "≥", "34,000", "≥", "560"]
    assert remark.startswith("≥: at least")


def test_what_was_deleted_is_said_to_be(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An endpoint or a model whose name nobody knows any more is told by its id, and why; a key's may be secret."""
    nameless = {name: value for name, value in ROW.items() if not name.endswith("_name")}
    answer(server, nameless, ROW)
    assert run(["usage"]) == 0
    _, deleted, there = capsys.readouterr().out.splitlines()
    assert deleted.split()[:5] == ["12", "7", "(deleted)", "9@1", "(deleted)"]
    assert "(deleted)" not in there


def test_what_is_asked_for_reaches_the_server(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The span, and what to tell apart; the table has the columns that were asked for."""
    answer(server, {name: value for name, value in ROW.items() if "key" not in name}, by=("model",))
    before = time.time()
    assert run(["usage", "--since", "2d", "--by", "model"]) == 0
    asked = parse_qs(server.requests[-1][0].partition("?")[2])
    assert 0 <= int(asked["from"][0]) - (int(before) - 2 * 86_400) <= time.time() - before + 1
    assert (asked["by"], asked["project"]) == (["model"], ["default"])
    assert capsys.readouterr().out.splitlines()[0].split()[0] == "MODEL"
    answer(server)
    assert run(["usage", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"] == []
    assert run(["usage"]) == 0
    assert capsys.readouterr().out == "No requests since 1970-01-01 00:00 UTC.\n"


@pytest.mark.parametrize("span", ["", "24", "h", "1w", "-3h"])
def test_a_span_that_is_none_is_refused(server: ScriptedServer, span: str) -> None:
    """Before the server is asked."""
    assert run(["usage", f"--since={span}"]) == 2
    assert not server.requests
