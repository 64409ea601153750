"""A real PostgreSQL of the test's own, on a unix socket, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

PROGRAMS = ("initdb", "pg_ctl")
_DEBIANS = Path("/usr/lib/postgresql")
_NOBODY = 65534


class Cluster:
    """One that runs.

    Attributes:
        folder: Its data and its socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()
        _run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "headrace", "--no-sync", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections. What is committed need not survive a power cut here."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=40"
        _run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once, whoever is connected; what was committed stays."""
        _run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", "fast", "stop")

    def new_database(self) -> str:
        """An empty database; its address."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(f"host={self.folder} user=headrace dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        return f"postgresql+psycopg://headrace@/{name}?host={self.folder}"


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster for as long as the block."""
    folder = Path(tempfile.mkdtemp(prefix="hr-pg-"))  # a unix socket's path must be short
    try:
        if os.getuid() == 0:  # PostgreSQL does not run as root
            os.chown(folder, _NOBODY, _NOBODY)
        cluster = Cluster(folder)
        try:
            yield cluster
        finally:
            if (folder / "data" / "postmaster.pid").is_file():
                cluster.stop()
    finally:
        shutil.rmtree(folder)


def _run(program: str, *arguments: str) -> None:
    command: Sequence[str] = [_program(program), *arguments]
    user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()} if os.getuid() == 0 else {}
    # A server inherits what its starter writes to: into a file, not into a pipe whose end would be waited for.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, stdout=output, stderr=output, check=False, cwd="/", **user)  # type: ignore[call-overload]
        output.seek(0)
        assert done.returncode == 0, f"{program}: {output.read().decode(errors='replace')[-2000:]}"


def _program(name: str) -> str:
    """On the PATH, or where Debian puts the newest version's."""
    found = shutil.which(name) or max((str(path) for path in _DEBIANS.glob(f"*/bin/{name}")), default="")
    assert found, f"{name} is not installed: the tests need the package postgresql"
    return found
