"""Files of any size pass gateway and control without being held in their memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from server_process import ServerProcess

SIZE_BYTES = 256 * 1024 * 1024
PIECE = bytes(range(256)) * 4096
MOST_BYTES = 64 * 1024 * 1024
"""That a process may have grown by: a quarter of the file."""


def high_water_bytes(pid: int) -> int:
    """The most memory that a process ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def pieces() -> Iterator[bytes]:
    """The file, as it is sent."""
    for _ in range(SIZE_BYTES // len(PIECE)):
        yield PIECE


def test_an_upload_takes_no_memory(shared_server: ServerProcess) -> None:
    """A file of 256 MiB, whose length is not announced, comes and goes; neither process grows by a quarter of it."""
    processes = {
        name: pid for name in ("server.gateway", "server.control") for pid in shared_server.pids(f"headrace.{name}")
    }
    assert len(processes) == 2
    path = "/api/2.0/fs/files/Volumes/ml/llm/raw/large.bin"
    with shared_server.client() as client:
        assert client.get("/api/2.1/unity-catalog/catalogs").status_code == 200
        before = {name: high_water_bytes(pid) for name, pid in processes.items()}
        assert client.put(path, content=pieces()).status_code == 204
        got = hashlib.sha256()
        with client.stream("GET", path) as answer:
            assert answer.headers["content-length"] == str(SIZE_BYTES)
            for piece in answer.iter_bytes():
                got.update(piece)
        sent = hashlib.sha256()
        for piece in pieces():
            sent.update(piece)
        assert got.digest() == sent.digest()
        grown = {name: high_water_bytes(pid) - before[name] for name, pid in processes.items()}
        assert client.delete(path).status_code == 204
    assert max(grown.values()) < MOST_BYTES, grown
