"""Object stores on this machine, as their vendors' own drivers meet them; and a network between that can be bad.

moto is S3, gcp-storage-emulator is Google Cloud Storage, azurite (Microsoft's own) is Azure; the Hub is `hub_server`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from hub_server import Hub

BUCKET = "weights"
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's account, published and the same everywhere."""

START_TIMEOUT_S = 30
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)
STORES = ("s3", "gs", "az", "hf")


class Store(NamedTuple):
    """A store that runs.

    Attributes:
        scheme: Of its addresses.
        port: Where it listens.
        variables: What a process that reads from it at a port needs in its environment.
        put: Stores files of a model of this name.
    """

    scheme: str
    port: int
    variables: Callable[[int], dict[str, str]]
    put: Callable[[str, Mapping[str, bytes]], None]

    def address(self, model: str) -> str:
        """Of a model that was put there."""
        return f"{self.scheme}://{BUCKET}/{model}"


@contextmanager
def running(scheme: str, folder: Path) -> Iterator[Store]:
    """The store of a scheme, empty."""
    if scheme == "hf":
        hub = Hub(folder)
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield Store("hf", hub.server_address[1], _hf, lambda model, files: _write(folder / BUCKET / model, files))
        finally:
            hub.shutdown()
            thread.join()
            hub.server_close()
        return
    port = _free_port()
    command, variables = {"s3": _moto, "gs": _gcs, "az": _azurite}[scheme](port), _VARIABLES[scheme]
    with (folder / f"{scheme}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one call into libc, which takes no lock
        )
    try:
        _await_port(process, port, folder / f"{scheme}.log")
        yield Store(scheme, port, variables, lambda model, files: _put(scheme, variables(port), model, files))
    finally:
        process.kill()
        process.wait()


def end_with_parent() -> None:
    """Have the kernel end this process with the one that started it, also where that cannot clean up any more."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _moto(port: int) -> list[str]:
    return [_emulators("moto_server"), "-H", "127.0.0.1", "-p", str(port)]


def _gcs(port: int) -> list[str]:
    return [_emulators("gcp-storage-emulator"), "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]


def _azurite(port: int) -> list[str]:
    program = os.environ["HEADRACE_TEST_AZURITE"]
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    return ["node", program, *where, "--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]


def _emulators(program: str) -> str:
    return str(Path(os.environ["HEADRACE_TEST_EMULATORS_PYTHON"]).with_name(program))


def _s3(port: int) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    return keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def _gs(port: int) -> dict[str, str]:
    return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


def _az(port: int) -> dict[str, str]:
    parts = {"DefaultEndpointsProtocol": "http", "AccountName": AZURE_ACCOUNT, "AccountKey": AZURE_KEY}
    parts["BlobEndpoint"] = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in parts.items()) + ";"}


def _hf(port: int) -> dict[str, str]:
    return {"HF_ENDPOINT": f"http://127.0.0.1:{port}"}


_VARIABLES: Mapping[str, Callable[[int], dict[str, str]]] = {"s3": _s3, "gs": _gs, "az": _az}


def _put(scheme: str, variables: Mapping[str, str], model: str, files: Mapping[str, bytes]) -> None:
    before = dict(os.environ)
    os.environ.update(variables, GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false")
    try:
        filesystem: Any = fsspec.filesystem(scheme, skip_instance_cache=True)
        with contextlib.suppress(Exception):  # each driver has an error of its own for a bucket that is there
            filesystem.mkdir(BUCKET)
        for name, content in files.items():
            filesystem.pipe_file(f"{BUCKET}/{model}/{name}", content)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)  # another process's port: nothing to await


class Network:
    """A proxy on the loopback before a store: what comes back can be cut, held up or changed.

    Attributes:
        on_bytes: Called with each piece that comes from the store and the number of bytes that came before, over all
            connections; gives what is passed on, or None to cut the connection there.
        passed: Bytes that were passed on.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.on_bytes: Callable[[bytes, int], bytes | None] = lambda piece, _: piece
        self.passed = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Cut everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            _cut(one)
        self._accepting.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            store = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, store]
            threading.Thread(target=self._there, args=(client, store), daemon=True).start()
            threading.Thread(target=self._back, args=(store, client), daemon=True).start()

    def _there(self, client: socket.socket, store: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                store.sendall(piece)
        _cut(store)

    def _back(self, store: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := store.recv(1 << 16):
                with self._lock:
                    passed_on = self.on_bytes(piece, self.passed)
                    self.passed += len(passed_on or b"")
                if passed_on is None:
                    break
                client.sendall(passed_on)
        _cut(client)
        _cut(store)


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def network(store: Store) -> Iterator[Network]:
    """A proxy before a store."""
    between = Network(store.port)
    try:
        yield between
    finally:
        between.close()
