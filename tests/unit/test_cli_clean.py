"""What `headrace clean` removes, and what it leaves alone."""

import fcntl
import json

import pytest
from cli_server import serving

from headrace.cli.app import run
from headrace.cli.clean import Uses, find_items
from headrace.resources.layout import Layout


@pytest.fixture
def layout(tmp_path, monkeypatch):
    """A data directory with two staged models, two replicas' folders and an environment of another version."""
    monkeypatch.delenv("HEADRACE_RUNTIMES_DIR", raising=False)
    layout = Layout(tmp_path)
    for folder in (
        layout.models_dir / "aaa",
        layout.models_dir / "bbb",
        layout.replica_dir("1"),
        layout.replica_dir("2"),
        layout.runtimes_dir / "transformers-0123456789ab",
        layout.runtimes_dir / "somebody-elses-folder",
    ):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 100_000)
    return layout


def test_only_what_nobody_uses_is_found(layout):
    """Models, replicas and runtimes in use are left alone, and so is what is not ours."""
    uses = Uses(fingerprints=frozenset({"aaa"}), replicas=frozenset({"1"}))
    found = {(item.kind, item.path) for item in find_items(layout, uses, everything=False)}
    assert found == {
        ("model", str(layout.models_dir / "bbb")),
        ("replica log", str(layout.replica_dir("2"))),
        ("runtime", str(layout.runtimes_dir / "transformers-0123456789ab")),
    }


def test_a_staged_model_is_named(layout, capsys):
    """By what it was registered as and where it came from: a fingerprint tells a person nothing."""
    version = {"project": "p", "model_id": "9", "version": "1", "fingerprint": "bbb", "artifact_uri": "/weights/river"}
    models = {"models": [{"display_name": "river", "versions": [version]}]}
    with serving() as server, layout.lock.open("w") as lock:
        layout.local_login.write_text(json.dumps({"url": server.url, "key": "k"}))
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.answers["GET /headrace/v1/deployments"] = (200, {"deployments": []})
        server.answers["GET /headrace/v1/models"] = (200, models)
        assert run(["clean", "--dry-run", "--data-dir", str(layout.data_dir)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if str(layout.models_dir / "bbb") in line]
    assert "river, /weights/river" in line


def test_uploads_of_deleted_versions_go(layout, capsys):
    """Not one that has a row, nor one that another version's artifacts are in, nor what control is at."""
    uploads = layout.uploads_dir
    gone = [uploads / "p" / "models" / "7" / "1", uploads / "p" / "served" / "7" / "1", uploads / "q" / "models/9/1"]
    kept = [
        uploads / "p" / "models" / "9" / "1",
        uploads / "p" / "served" / "9" / "1",
        uploads / "p" / "models" / "8" / "1" / "model",
        uploads / "p" / "models" / "7" / ".2.abcd.removing",
        uploads / "p" / "volumes" / "ml" / "llm" / "raw",
        uploads / ".incoming",
    ]
    for folder in (*gone, *kept):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
    versions = [
        {"project": "p", "model_id": "9", "version": "1", "fingerprint": "", "artifact_uri": ""},
        {"project": "p", "model_id": "m", "version": "1", "fingerprint": "", "artifact_uri": kept[2].as_uri()},
    ]
    with serving() as server, layout.lock.open("w") as lock:
        layout.local_login.write_text(json.dumps({"url": server.url, "key": "k"}))
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.answers["GET /headrace/v1/deployments"] = (200, {"deployments": []})
        server.answers["GET /headrace/v1/models"] = (200, {"models": [{"display_name": "m", "versions": versions}]})
        assert run(["clean", "--yes", "--data-dir", str(layout.data_dir)]) == 0
        assert all(line.endswith("?project=*") or "%2A" in line for line, _, _ in server.requests if "/models" in line)
    assert [folder.exists() for folder in gone] == [False] * len(gone)
    assert [(folder / "file").exists() for folder in kept] == [True] * len(kept)
    assert "was deleted" in capsys.readouterr().out


def test_an_upload_that_came_into_use_while_it_asked_stays(layout, capsys):
    """The server is asked once more before anything of them goes."""
    folder = layout.uploads_dir / "p" / "models" / "9" / "1"
    folder.mkdir(parents=True)
    version = {"project": "p", "model_id": "9", "version": "1", "fingerprint": "", "artifact_uri": ""}
    answers = [[], [version]]
    with serving() as server, layout.lock.open("w") as lock:
        layout.local_login.write_text(json.dumps({"url": server.url, "key": "k"}))
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.answers["GET /headrace/v1/deployments"] = (200, {"deployments": []})
        server.answers["GET /headrace/v1/models"] = lambda _: (
            200,
            {"models": [{"display_name": "m", "versions": answers.pop(0)}]},
        )
        assert run(["clean", "--yes", "--data-dir", str(layout.data_dir)]) == 0
    assert folder.exists()
    assert f"{folder} stays: it came into use meanwhile." in capsys.readouterr().out


def test_a_dry_run_shows_sizes_and_removes_nothing(layout, capsys):
    """--dry-run lists what could go, with sizes."""
    assert run(["clean", "--dry-run", "--json", "--data-dir", str(layout.data_dir)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [item["kind"] for item in answer["items"]].count("replica log") == 2
    assert len(answer["items"]) == 3
    assert all(item["size_bytes"] >= 100_000 for item in answer["items"])
    assert (layout.models_dir / "aaa" / "file").exists()


def test_without_a_server_staged_models_stay(layout, capsys):
    """Nobody can say which staged models are in use: they are left out, and the total is that of the rest."""
    assert run(["clean", "--dry-run", "--data-dir", str(layout.data_dir)]) == 0
    out = capsys.readouterr().out
    assert str(layout.models_dir) not in out
    assert "Staged models are left out" in out
    assert "3 in all, " in out


def test_it_asks_first(layout, capsys):
    """Without a terminal and without --yes nothing is removed; with --yes it is."""
    assert run(["clean", "--data-dir", str(layout.data_dir)]) == 2
    assert layout.replica_dir("1").exists()
    assert "fix: Add --yes." in capsys.readouterr().err
    assert run(["clean", "--yes", "--data-dir", str(layout.data_dir)]) == 0
    assert not layout.replica_dir("1").exists()
    assert (layout.models_dir / "aaa").exists()
    assert (layout.runtimes_dir / "somebody-elses-folder").exists()
    assert "freed" in capsys.readouterr().out


def test_nothing_is_removed_when_a_running_server_cannot_say(layout, capsys):
    """While the server holds its lock and does not answer, clean refuses."""
    layout.local_login.write_text(json.dumps({"url": "http://127.0.0.1:1", "key": "k"}))
    with layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(["clean", "--yes", "--data-dir", str(layout.data_dir)]) == 5
    assert (layout.models_dir / "aaa").exists()
    assert "SERVER_UNREACHABLE" in capsys.readouterr().err
