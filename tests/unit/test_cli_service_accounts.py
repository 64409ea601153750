"""Service accounts on the command line: their file, and the tokens that curl shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_server import ScriptedServer, google_error, serving
from service_accounts import KEY_ID, account_file, pair

from headrace.cli.app import run
from headrace.contracts.vertex.service_accounts import verify_token

FILE = {"type": "service_account", "token_uri": "http://h/token", "private_key": "PRIVATE"}
MADE = {"id": "3", "name": "jobs", "project": "default", "role": "predictor", "service_account": FILE}
CREATE = ["keys", "create", "--format", "service-account"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server that commands find by the environment, and no other login."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        scripted.answers["POST /headrace/v1/keys"] = (200, MADE)
        yield scripted


def test_it_goes_into_a_file_of_its_own(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The file is its owner's alone, and its private key is shown nowhere else."""
    path = tmp_path / "sa.json"
    assert run([*CREATE, "jobs", "--out", str(path)]) == 0
    assert "PRIVATE" not in capsys.readouterr().out
    assert json.loads(path.read_text()) == FILE
    assert path.stat().st_mode & 0o777 == 0o600
    (asked,) = server.asked("POST /headrace/v1/keys")
    assert asked == {"name": "jobs", "role": "predictor", "project": "default", "format": "service-account"}
    assert run([*CREATE, "--out", str(tmp_path / "other.json"), "--json"]) == 0
    assert "PRIVATE" not in capsys.readouterr().out


def test_without_a_file_it_is_all_that_stdout_gets(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a shell may redirect it; a name is not needed."""
    assert run(CREATE) == 0
    assert json.loads(capsys.readouterr().out) == FILE
    assert server.asked("POST /headrace/v1/keys")[0]["name"] == "service-account"


def test_no_file_is_written_over(server: ScriptedServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where there can be no new file the server is not even asked: a private key would be lost."""
    path = tmp_path / "sa.json"
    path.write_text("another")
    for there in (path, tmp_path / "no" / "sa.json"):
        assert run([*CREATE, "--out", str(there)]) == 2
    assert path.read_text() == "another"
    assert server.requests == []
    capsys.readouterr()


def test_a_refusal_leaves_no_file(server: ScriptedServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nothing is left where the server made no key."""
    server.answers["POST /headrace/v1/keys"] = (403, google_error(403, "ROLE_MISSING", "No."))
    assert run([*CREATE, "--out", str(tmp_path / "sa.json")]) == 4
    assert not (tmp_path / "sa.json").exists()
    capsys.readouterr()


@pytest.mark.parametrize("wrong", [["keys", "create"], ["keys", "create", "me", "--out", "sa.json"]])
def test_plain_keys_have_a_name_and_no_file(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    """Wrong usage is told before anything is made."""
    assert run(wrong) == 2
    assert server.requests == []
    capsys.readouterr()


def test_an_access_token(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`auth print-access-token` prints the login's key, or a token by a file of ours that is named; asks no server."""

    def printed(*arguments: str) -> str:
        assert run(["auth", "print-access-token", *arguments]) == 0
        return capsys.readouterr().out.removesuffix("\n")

    assert printed() == "hr-test"
    path, google = tmp_path / "sa.json", tmp_path / "google.json"
    path.write_text(json.dumps(account_file()))
    google.write_text(json.dumps(account_file() | {"client_email": "a@b.iam.gserviceaccount.com"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(google))
    assert printed() == "hr-test"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    named = ("--key-file", str(path))
    for token in (printed(), printed(*named), json.loads(printed(*named, "--json"))["access_token"]):
        now = time.time()
        assert verify_token(token, key_id=KEY_ID, project="default", public_key=pair().public_key, now=now) > now + 3590
    assert printed("--key", "hr-given") == "hr-given"
    assert server.requests == []


def test_a_file_that_is_named_must_be_ours(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One for Google's cloud, one with a broken key, one that is not there: wrong usage, and what is wrong with it."""
    google, broken, folder = tmp_path / "google.json", tmp_path / "broken.json", tmp_path
    google.write_text(json.dumps(account_file() | {"client_email": "a@b.iam.gserviceaccount.com"}))
    broken.write_text(json.dumps(account_file() | {"private_key": "none"}))
    for wrong in (google, broken, folder, tmp_path / "missing.json"):
        assert run(["auth", "print-access-token", "--key-file", str(wrong)]) == 2
        assert wrong.name in capsys.readouterr().err
