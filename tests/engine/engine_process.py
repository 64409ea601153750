"""Starts the real engine as its own process, in its own environment, and talks to it over its unix socket."""

import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

MODEL_NAME = "smol"
THREADS = "2"
START_TIMEOUT_S = 120


def required(variable: str) -> Path:
    """A path that the set-up of the tests provides."""
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set. `make test` prepares the engine's environment and model, and sets it.")
    return Path(value)


def source_root() -> Path:
    """The folder that holds headrace_engines, for the engine's environment to import from."""
    spec = find_spec("headrace_engines")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


class EngineProcess:
    """One engine and the ways to ask it."""

    def __init__(self, process: subprocess.Popen[bytes], uds: Path, log: Path, token: str | None) -> None:
        self.process = process
        self.log = log
        self.uds = uds
        self._token = token
        self.client = self.new_client()

    def new_client(self, timeout_s: float = 120, token: str | None = None) -> httpx.Client:
        """A client with connections of its own."""
        token = token or self._token
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.uds)),
            base_url="http://engine",
            timeout=timeout_s,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def health(self) -> tuple[int, str] | None:
        """Status and state, or None while nothing listens."""
        try:
            response = self.client.get("/health")
        except httpx.TransportError:
            return None
        return response.status_code, response.json()["status"]

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Ask again and again; fail with the log if the process ends first."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"Not so: {what}. Exit status {self.process.poll()}.\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def wait_ready(self) -> None:
        """Wait for ``GET /health`` to answer 200."""
        self.wait_until(lambda: self.health() == (200, "ready"), "the engine is ready")

    def metric(self, name: str, **labels: str) -> float:
        """One value of ``GET /metrics``."""
        for line in self.client.get("/metrics").text.splitlines():
            labelled, _, value = line.rpartition(" ")
            if labelled.partition("{")[0] == name and all(f'{k}="{v}"' in labelled for k, v in labels.items()):
                return float(value)
        raise AssertionError(f"There is no metric {name} {labels}.")

    def chat(self, content: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one user message."""
        response = self.client.post("/v1/chat/completions", json=chat_body(content, **parameters))
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of a stream, which must end as OpenAI's do."""
        with self.client.stream("POST", path, json=body | {"stream": True}) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream"
            yield from read_events(response)

    def fatal(self, timeout_s: float = START_TIMEOUT_S) -> dict[str, str]:
        """How the engine said that it cannot go on, after it has ended."""
        assert self.process.wait(timeout_s) == 3, self.log.read_text()[-3000:]
        last_line = self.log.read_text().splitlines()[-1]
        assert last_line.startswith("HEADRACE_FATAL ")
        fatal: dict[str, str] = json.loads(last_line.removeprefix("HEADRACE_FATAL "))
        assert fatal.keys() == {"code", "message", "evidence"}
        return fatal


def chat_body(content: str, **parameters: Any) -> dict[str, Any]:
    """A chat request with one user message; greedy unless told otherwise."""
    return {"model": MODEL_NAME, "messages": [{"role": "user", "content": content}], "temperature": 0} | parameters


def read_events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON of each event, up to ``[DONE]``."""
    done = False
    for line in response.iter_lines():
        if line:
            assert not done
            data = line.removeprefix("data: ")
            done = data == "[DONE]"
            if not done:
                yield json.loads(data)
    assert done


@contextmanager
def start_engine(
    model: Path,
    *arguments: str,
    token: str | None = None,
    memory_limit_bytes: int | None = None,
    program: tuple[str, ...] = ("-m", "headrace_engines.transformers", "--threads", THREADS),
) -> Iterator[EngineProcess]:
    """A starting engine, in a place where an earlier one left its socket behind; it is ended with the block."""
    # As the runtime starts it (headrace.runtimes.transformers): threads that wait do not spin.
    environment = os.environ | {"PYTHONPATH": str(source_root()), "OMP_WAIT_POLICY": "PASSIVE"}
    if token:
        environment["HEADRACE_ENGINE_TOKEN"] = token
    python = required("HEADRACE_TEST_ENGINE_PYTHON")
    with TemporaryDirectory(prefix="headrace-engine-") as folder:
        uds, log = Path(folder) / "engine.sock", Path(folder) / "engine.log"
        command = [str(python), *program, "--model", str(model)]
        command += ["--served-model-name", MODEL_NAME, "--uds", str(uds), *arguments]
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(uds))
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, cwd=folder)
        if memory_limit_bytes is not None:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (memory_limit_bytes, resource.RLIM_INFINITY))
        engine = EngineProcess(process, uds, log, token)
        try:
            yield engine
        finally:
            engine.client.close()
            process.kill()
            process.wait()


def run_in_engine_environment(program: Path, *arguments: str, given: object = None) -> Any:
    """What a program prints as JSON when run by the engine's own Python."""
    python = required("HEADRACE_TEST_ENGINE_PYTHON")
    done = subprocess.run(
        [str(python), str(program), *arguments],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(source_root())},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
