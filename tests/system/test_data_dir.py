"""A damaged data directory is named, or mended where nothing is lost by it; `serve` never ends in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server_process import running_server


def _serve(data_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.cli", "serve", "--data-dir", str(data_dir), "--port", "0", "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "the database is noise": ("DATABASE_CORRUPT", lambda folder: (folder / "headrace.db").write_bytes(b"noise" * 4096)),
    "the database is a folder": ("DATA_DIR_UNUSABLE", lambda folder: (folder / "headrace.db").mkdir()),
    "the login is a folder": ("DATA_DIR_UNUSABLE", lambda folder: (folder / "login.json").mkdir()),
    "the lock is a folder": ("DATA_DIR_UNUSABLE", lambda folder: (folder / "serve.lock").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_used_is_named(tmp_path: Path, damage: str) -> None:
    """Each damage stops `serve` with its code and evidence, exit status 1 and nothing left running."""
    code, do = DAMAGE[damage]
    folder = tmp_path / "data"
    folder.mkdir()
    do(folder)
    done = _serve(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    error = json.loads(done.stderr)
    assert code in json.dumps(error)
    assert "Traceback" not in done.stderr


def test_what_can_be_made_anew_is(tmp_path: Path) -> None:
    """An emptied internal token, a broken snapshot and a broken login are made anew; keys and rows stay good."""
    data_dir = tmp_path / "data"
    with running_server(data_dir) as server:
        key = server.key
    (data_dir / "internal.token").write_bytes(b"\xff")
    (data_dir / "gateway" / "snapshot.json").write_bytes(b"{")
    (data_dir / "login.json").write_bytes(b"\xff")
    with running_server(data_dir) as server:
        assert server.key != key
        with server.client(key) as client:
            assert client.get("/v1/models").status_code == 200, "the old key still works, at the gateway too"
            assert client.get("/headrace/v1/status").status_code == 200


def test_one_server_a_data_directory(tmp_path: Path) -> None:
    """A second `serve` on the same data directory is refused, and the first goes on."""
    with running_server(tmp_path / "data") as server:
        done = _serve(server.data_dir)
        assert done.returncode == 1
        assert "DATA_DIR_IN_USE" in done.stderr
        with server.client() as client:
            assert client.get("/headrace/v1/status").status_code == 200
