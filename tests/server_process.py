"""A real `headrace serve` in a process of its own, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT_S = 60.0
RECOVERY_S = 60.0
PROJECT = "my-proj"
LOCATION = "us-central1"


class ServerProcess:
    """`headrace serve` on a free port, in a data directory of its own.

    Attributes:
        data_dir: Its data directory.
        process: The supervisor's process.
    """

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self._arguments = arguments
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        before = self._login_written()
        command = [sys.executable, "-m", "headrace.cli", "serve", "--data-dir", str(self.data_dir), "--port", "0"]
        output = (self.data_dir.parent / f"{self.data_dir.name}.serve.log").open("ab")
        process = subprocess.Popen([*command, *self._arguments], stdout=output, stderr=output)
        output.close()
        deadline = time.monotonic() + START_TIMEOUT_S
        try:
            while self._login_written() == before or not self._ready():
                assert process.poll() is None, f"serve ended: {self.output}"
                assert time.monotonic() < deadline, f"serve did not become ready: {self.output}"
                time.sleep(0.05)  # another process's file and port: nothing to await
        except BaseException:
            process.kill()  # nobody has it yet who would
            process.wait()
            raise
        return process

    def _login_written(self) -> int:
        """When it was, in nanoseconds: each start writes it anew, with its address."""
        return self.login_path.stat().st_mtime_ns if self.login_path.is_file() else 0

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.login['url']}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def restart(self) -> None:
        """Start again on the same data directory, after the last one ended."""
        self.process = self._start()

    @property
    def login_path(self) -> Path:
        """Where serve leaves its address and first key."""
        return self.data_dir / "login.json"

    @property
    def login(self) -> dict[str, str]:
        """Address and admin key."""
        content: dict[str, str] = json.loads(self.login_path.read_text())
        return content

    @property
    def url(self) -> str:
        """Address."""
        return self.login["url"]

    @property
    def key(self) -> str:
        """Admin key."""
        return self.login["key"]

    @property
    def output(self) -> str:
        """What serve said so far."""
        return (self.data_dir.parent / f"{self.data_dir.name}.serve.log").read_text()

    @property
    def environment(self) -> dict[str, str]:
        """What makes the command line talk to this server."""
        config = {"HEADRACE_CONFIG_DIR": str(self.data_dir.parent / "config"), "NO_COLOR": "1"}
        return os.environ | config | {"HEADRACE_URL": self.url, "HEADRACE_API_KEY": self.key}

    def client(self, key: str | None = None) -> httpx.Client:
        """An HTTP client with the admin key, or another."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key or self.key}"}, timeout=120)

    def cli(self, *arguments: str, check: bool = True, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the command line against this server."""
        command = [sys.executable, "-m", "headrace.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert not check or done.returncode == 0, (
            f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        return done

    def deploy(self, weights: Path | str, **fields: Any) -> str:
        """Ask for a deployment through the Vertex contract; returns the operation's name."""
        body = {"customModel": {"gcsUri": str(weights)}, **fields}
        with self.client() as client:
            answer = client.post(f"/v1beta1/projects/{PROJECT}/locations/{LOCATION}:deploy", json=body)
        assert answer.status_code == 200, answer.text
        name: str = answer.json()["name"]
        return name

    def await_operation(self, name: str, *, timeout_s: float = 120) -> dict[str, Any]:
        """Poll an operation until it is done."""
        deadline = time.monotonic() + timeout_s
        with self.client() as client:
            while True:
                operation: dict[str, Any] = client.get(f"/ui/{name}").json()
                if operation.get("done"):
                    return operation
                assert time.monotonic() < deadline, f"operation not done: {operation}\n{self.output}"
                time.sleep(0.1)

    def deployed(self, weights: Path | str, **fields: Any) -> str:
        """Deploy and wait; returns the endpoint's name."""
        operation = self.await_operation(self.deploy(weights, **fields))
        assert "response" in operation, operation
        endpoint: str = operation["response"]["endpoint"]
        return endpoint

    def pids(self, *words: str) -> list[int]:
        """Processes of this data directory whose command line has all these words."""
        return [pid for pid, command in self.processes().items() if all(word in command for word in words)]

    def processes(self) -> dict[int, str]:
        """Every process whose command line names this data directory: nothing of ours runs without doing so."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if str(self.data_dir) in command:
                    found[int(entry.name)] = command
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout_s: float = 60) -> int:
        """Signal the supervisor and wait for its end; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=timeout_s)

    def kill_everything(self) -> None:
        """The test's own broom; a test that needs it has failed already."""
        self.process.kill()
        self.process.wait()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def eventually(question: Callable[[], Any], *, timeout_s: float = RECOVERY_S) -> Any:
    """The first true answer; other processes' states can only be asked for."""
    deadline = time.monotonic() + timeout_s
    while not (answer := question()):
        assert time.monotonic() < deadline, f"never became true: {question}"
        time.sleep(0.1)
    return answer


@contextmanager
def running_server(data_dir: Path, *arguments: str) -> Iterator[ServerProcess]:
    """A server that is gone when the block ends, and took everything with it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    server = ServerProcess(data_dir, *arguments)
    try:
        yield server
        assert server.stop() == 0, server.output
        # A shim tells that its engine ended, and ends: on a loaded machine a moment later.
        assert eventually(lambda: not server.processes(), timeout_s=10), "a server that stopped left processes behind"
    finally:
        server.kill_everything()
