"""A real engine as its own process, in its own environment, and the ways to talk to it over its unix socket."""

import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from engine_launch import MODEL_NAME, TOKEN, engine_command, environment_of, required

ONE_EACH = httpx.Limits(max_connections=100, max_keepalive_connections=0)
"""A connection for each request: uvicorn, under vLLM's server, closes a kept one when its time is over, even where a
request has come on it that a busy process did not read yet."""

START_TIMEOUT_S = 240
"""vLLM compiles for more than a minute on a machine with nothing else to do."""


class EngineProcess:
    """One engine and the ways to ask it.

    Attributes:
        name: Which engine it is.
        model: The folder that it serves.
    """

    def __init__(
        self, name: str, model: Path, process: subprocess.Popen[bytes], uds: Path, log: Path, token: str
    ) -> None:
        self.name = name
        self.model = model
        self.process = process
        self.log = log
        self.uds = uds
        self.token = token
        self.client = self.new_client()

    def new_client(self, timeout_s: float = 120, token: str | None = None) -> httpx.Client:
        """A client with connections of its own."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.uds), limits=ONE_EACH),
            base_url="http://engine",
            timeout=timeout_s,
            headers={"Authorization": f"Bearer {token or self.token}"},
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

    def _answers_200(self) -> bool:
        with suppress(httpx.TransportError):
            return self.client.get("/health").status_code == 200
        return False

    def wait_ready(self) -> None:
        """Wait for ``GET /health`` to answer 200."""
        self.wait_until(self._answers_200, "the engine is ready")

    def wait_idle(self, timeout_s: float = 30) -> None:
        """Wait until nothing runs and nothing waits."""
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
        self.wait_until(lambda: sum(map(self.metric, names)) == 0, "every place is free", timeout_s)

    def metric(self, name: str, **labels: str) -> float:
        """One value of ``GET /metrics``."""
        for line in self.client.get("/metrics").text.splitlines():
            labelled, _, value = line.rpartition(" ")
            if labelled.partition("{")[0] == name and all(f'{k}="{v}"' in labelled for k, v in labels.items()):
                return float(value)
        raise AssertionError(f"There is no metric {name} {labels}.")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request that is taken."""
        response = self.client.post(path, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def chat(self, content: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one user message."""
        return self.post("/v1/chat/completions", chat_body(content, **parameters))

    def complete(self, prompt: str | list[int], **parameters: Any) -> dict[str, Any]:
        """The continuation of a prompt; greedy unless told otherwise."""
        return self.post("/v1/completions", completion_body(prompt, **parameters))

    def text(self, content: str, **parameters: Any) -> str:
        """The text of the answer to one user message."""
        text: str = self.chat(content, **parameters)["choices"][0]["message"]["content"]
        return text

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text, without special tokens."""
        body = {"model": MODEL_NAME, "prompt": text, "add_special_tokens": False}
        tokens: list[int] = self.post("/tokenize", body)["tokens"]
        return tokens

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of a stream, which must end as OpenAI's do."""
        with self.client.stream("POST", path, json=body | {"stream": True}) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
            yield from read_events(response)

    def fatal(self, timeout_s: float = START_TIMEOUT_S) -> dict[str, str]:
        """How an engine of ours said that it cannot go on, after it has ended."""
        assert self.process.wait(timeout_s) == 3, self.log.read_text()[-3000:]
        last_line = self.log.read_text().splitlines()[-1]
        assert last_line.startswith("HEADRACE_FATAL ")
        fatal: dict[str, str] = json.loads(last_line.removeprefix("HEADRACE_FATAL "))
        assert fatal.keys() == {"code", "message", "evidence"}
        return fatal


def chat_body(content: str, **parameters: Any) -> dict[str, Any]:
    """A chat request with one user message; greedy unless told otherwise."""
    return {"model": MODEL_NAME, "messages": [{"role": "user", "content": content}], "temperature": 0} | parameters


def completion_body(prompt: str | list[int], **parameters: Any) -> dict[str, Any]:
    """A completions request; greedy unless told otherwise."""
    return {"model": MODEL_NAME, "prompt": prompt, "temperature": 0} | parameters


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
    engine: str = "transformers",
    token: str = TOKEN,
    memory_limit_bytes: int | None = None,
    program: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
    **wished: Any,
) -> Iterator[EngineProcess]:
    """A starting engine, in a place where an earlier one left its socket behind; it is ended with the block.

    Args:
        model: The folder, in the form that the engine loads.
        arguments: Added to what the runtime's adapter says; a repeated option overrides its first.
        engine: Which one.
        token: What it demands of its callers.
        memory_limit_bytes: Its address space.
        program: Run instead of the engine's own module, with the arguments that every engine of ours takes.
        variables: Added to the process environment that the runtime's adapter makes.
        wished: What a version wishes of its engine, by the fields of `Launch`.
    """
    with TemporaryDirectory(prefix="headrace-engine-") as folder:
        uds, log = Path(folder) / "engine.sock", Path(folder) / "engine.log"
        command = engine_command(engine, model, uds, token=token, **wished)
        argv = command.argv
        if program:
            shared = ("--model", str(model), "--served-model-name", MODEL_NAME, "--uds", str(uds))
            argv = (argv[0], *program, *shared)
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(uds))
        with log.open("wb") as stream:
            env = command.env | dict(variables or {})
            process = subprocess.Popen(
                [*argv, *arguments], stdout=stream, stderr=stream, env=env, cwd=folder, start_new_session=True
            )
        if memory_limit_bytes is not None:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (memory_limit_bytes, resource.RLIM_INFINITY))
        running = EngineProcess(engine, model, process, uds, log, token)
        try:
            yield running
        finally:
            running.client.close()
            with suppress(ProcessLookupError):  # vLLM computes in a child; the whole group goes
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_in_engine_environment(program: Path, *arguments: str, given: object = None) -> Any:
    """What a program prints as JSON when run by the Python of the transformers engine."""
    environment = environment_of("transformers")
    done = subprocess.run(
        [str(environment.python), str(program), *arguments],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        # passive: threads that spin while they wait would starve an engine that runs beside
        env=os.environ | {"PYTHONPATH": str(environment.engines_path), "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def remembered(program: Path, *arguments: str, given: object = None) -> Any:
    """The same, asked once per machine: for references that take minutes and depend on nothing of ours.

    Kept in the tests' cache folder under all that the answer depends on: the program, what it is given, and the
    environment, whose folder's name is made of its pins.
    """
    asked = json.dumps([program.read_text(), arguments, given, str(environment_of("transformers").python)])
    name = f"{program.stem}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    path = required("HEADRACE_CACHE_DIR") / "references" / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(run_in_engine_environment(program, *arguments, given=given)))
        unfinished.replace(path)
    return json.loads(path.read_text())
