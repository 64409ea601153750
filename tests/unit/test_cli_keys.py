"""Keys on the command line, against the real control plane: which of them a command means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_server import listening

from headrace.api import create_app
from headrace.cli.app import run
from headrace.control import commands
from headrace.resources.access import EVERY_PROJECT, Role
from headrace.resources.layout import Layout
from headrace.resources.operations import ApiKey
from headrace.store import Store, migrate


class _Reconciler:
    """Needs no waking: keys have no replicas."""

    def wake(self) -> None:
        """Nothing."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The rows of a control plane that commands find by the environment, with the key of an admin of every project."""
    layout = Layout(tmp_path / "data")
    layout.data_dir.mkdir()
    migrate(url := f"sqlite:///{layout.database}")
    store = Store(url)
    app = create_app(store, _Reconciler(), layout, internal_token="ours")
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(layout.data_dir))
    monkeypatch.setenv("HEADRACE_API_KEY", made(store, "root", EVERY_PROJECT, Role.ADMIN)[1])
    with listening(app) as url:
        monkeypatch.setenv("HEADRACE_URL", url)
        yield store
    store.close()


def made(store: Store, name: str, project: str, role: Role = Role.PREDICTOR) -> tuple[ApiKey, str]:
    """A fresh key and its secret."""
    with store.transaction() as tx:
        return commands.create_key(tx, name=name, project=project, role=role, now=1.0)


def kept(store: Store, key: ApiKey) -> ApiKey:
    """Its row, as it is now."""
    with store.transaction(read_only=True) as tx:
        row = tx.get(ApiKey, id=key.id)
    assert row is not None
    return row


def test_a_key_of_another_project_than_the_named_one_is_not_meant(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --project neither name nor id reaches beyond it: nothing is revoked or changed, and none is listed."""
    prod, _ = made(store, "ci", "prod")
    for wanted in ("ci", prod.id):
        assert run(["keys", "revoke", wanted, "--project", "staging", "--yes"]) == 3
        shown = capsys.readouterr().err
        assert "KEY_NOT_FOUND" in shown
        assert "in project 'staging'" in shown
        assert run(["keys", "update", wanted, "--project", "staging", "--tokens-per-minute", "1"]) == 3
    assert kept(store, prod) == prod
    assert run(["keys", "list", "--project", "staging"]) == 0
    assert prod.id not in capsys.readouterr().out


def test_the_named_project_tells_keys_of_one_name_apart(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Where two projects have a key of the name, --project says which; without it the name is ambiguous."""
    prod, staging = made(store, "ci", "prod")[0], made(store, "ci", "staging")[0]
    assert run(["keys", "revoke", "ci", "--yes"]) == 2
    assert "NAME_AMBIGUOUS" in capsys.readouterr().err
    assert run(["keys", "revoke", "ci", "--project", "staging", "--yes"]) == 0
    assert kept(store, prod).revoked_at is None
    assert kept(store, staging).revoked_at is not None
    assert run(["keys", "revoke", "ci", "--project", EVERY_PROJECT, "--yes"]) == 0
    assert kept(store, prod).revoked_at is not None
