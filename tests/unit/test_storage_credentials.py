"""Credentials of projects: kept for their owner's eyes, given to one project's drivers, shown to nobody."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.cli.app import run
from headrace.resources.errors import BadField, BadName, DataDirUnusable
from headrace.resources.layout import Layout
from headrace.storage import Credentials
from headrace.storage.credentials import driver_options

S3 = {"AWS_ACCESS_KEY_ID": "id-of-red", "AWS_SECRET_ACCESS_KEY": "secret-of-red"}


def test_a_project_gets_its_own_and_no_other(tmp_path: Path) -> None:
    """By project and scheme, as the driver's options; whoever has none gets none."""
    credentials = Credentials(tmp_path / "credentials.json")
    credentials.set("red", "s3", S3)
    credentials.set("blue", "hf", {"HF_TOKEN": "token-of-blue"})
    assert credentials.options("red", "s3://b/m") == {"key": "id-of-red", "secret": "secret-of-red"}
    assert credentials.options("blue", "hf://o/m") == {"token": "token-of-blue"}
    for project, uri in (
        ("blue", "s3://b/m"),
        ("red", "hf://o/m"),
        ("", "s3://b/m"),
        ("red", "/s3"),
        ("red", "file:///x"),
    ):
        assert credentials.options(project, uri) == {}
    assert credentials.options("red", "S3://b/m")["key"] == "id-of-red"


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600 from its first byte, also where one that was killed left something else."""
    file = tmp_path / "data" / "credentials.json"
    file.parent.mkdir()
    left_behind = file.parent / f".credentials.json.{os.getpid()}"
    left_behind.write_text("")
    left_behind.chmod(0o644)
    Credentials(file).set("red", "s3", S3)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("scheme", "values"),
    [
        ("ftp", {"USER": "u"}),
        ("s3", {"AWS_ACCESS_KEY_ID": "a-value"}),
        ("s3", S3 | {"AWS_SECRET_ACCESS_KEY": ""}),
        ("hf", {"HF_TOKEN": "a-value", "OTHER": "a-value"}),
    ],
)
def test_half_of_them_or_others_are_refused(scheme: str, values: dict[str, str], tmp_path: Path) -> None:
    """What is missing would come from the server's own environment; the refusal names names and no value."""
    with pytest.raises(BadField) as refused:
        Credentials(tmp_path / "credentials.json").set("red", scheme, values)
    said = f"{refused.value.message} {refused.value.evidence} {refused.value.fix}"
    assert not [value for value in values.values() if len(value) > 1 and value in said]
    assert not (tmp_path / "credentials.json").exists()


def test_a_project_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """It would fetch with the server's own credentials, and whoever mistyped it would not know."""
    with pytest.raises(BadName):
        Credentials(tmp_path / "credentials.json").set("../red", "s3", S3)
    assert not (tmp_path / "credentials.json").exists()


def test_a_file_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    """Else a project's weights would be asked for with the server's own rights; its content is not told."""
    (tmp_path / "credentials.json").write_text('{"red": {"s3": "secret-of-red"')
    with pytest.raises(DataDirUnusable) as refused:
        Credentials(tmp_path / "credentials.json").options("red", "s3://b/m")
    assert "secret-of-red" not in f"{refused.value} {refused.value.evidence}"


def test_many_who_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each change begins with what the one before wrote."""
    credentials = Credentials(tmp_path / "credentials.json")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: credentials.set(f"p{number}", "hf", {"HF_TOKEN": "t"}), range(40)))
    assert len(credentials.list()) == 40


def test_a_key_file_of_googles_is_kept_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that the variable names may go; what is kept is its JSON, which is what the driver is given."""
    (tmp_path / "key.json").write_text('{"type": "service_account", "private_key": "secret-of-red"}')
    command = ["credentials", "set", "gs", f"GOOGLE_APPLICATION_CREDENTIALS={tmp_path / 'key.json'}"]
    assert run([*command, "--project", "red", "--data-dir", str(tmp_path)]) == 0
    options = Credentials(Layout(tmp_path).credentials).options("red", "gs://b/m")
    assert driver_options("gs", options)["token"]["private_key"] == "secret-of-red"
    with pytest.raises(BadField, match="not the JSON"):
        driver_options("gs", {"token": "secret-of-red"})
    assert "secret-of-red" not in capsys.readouterr().out


def test_the_commands_show_names_and_never_a_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set (from the environment or the command line), list as table and JSON, delete, and delete again."""
    where = ["--data-dir", str(tmp_path)]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3["AWS_SECRET_ACCESS_KEY"])
    values = ["AWS_ACCESS_KEY_ID=id-of-red", "AWS_SECRET_ACCESS_KEY"]
    assert run(["credentials", "set", "--project", "red", "s3", *values, *where]) == 0
    assert run(["credentials", "list", *where]) == 0
    assert run(["credentials", "set", "s3", "AWS_SESSION_TOKEN", *where]) == 2
    shown = capsys.readouterr()
    assert "AWS_SECRET_ACCESS_KEY" in shown.out
    assert run(["credentials", "list", "--json", *where]) == 0
    listed = capsys.readouterr()
    assert json.loads(listed.out)["credentials"] == [{"project": "red", "scheme": "s3", "names": sorted(S3)}]
    for text in (shown.out, shown.err, listed.out):
        assert "id-of-red" not in text
        assert "secret-of-red" not in text
    assert run(["credentials", "delete", "s3", "--project", "red", *where]) == 0
    assert run(["credentials", "delete", "s3", "--project", "red", *where]) == 3
    assert run(["credentials", *where]) == 0
    assert Credentials(Layout(tmp_path).credentials).list() == []
