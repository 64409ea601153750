"""Who takes part in `bench/engine.py` and how each is started: ours through the product, the others by hand."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import psutil

from engine_client import Job, Measured, Server, burst

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from headrace.resources.layout import Layout  # noqa: E402
from headrace.resources.snapshot import RoutingSnapshot  # noqa: E402
from server_process import ServerProcess, running_server  # noqa: E402 - found by the path above

MODEL = "smollm2"
MAX_MODEL_LEN = 8192
START_TIMEOUT_S = 300
CORES = sorted(os.sched_getaffinity(0))


class Facts(NamedTuple):
    """What one costs before it is asked anything.

    Attributes:
        ready_s: From its start until it answers; without downloads and conversion.
        install_bytes: Its environment on disk.
    """

    ready_s: float
    install_bytes: int


@dataclass
class Contender:
    """One way to get tokens.

    Attributes:
        name: In the table.
        facts: What it costs to have.
        server: Where it listens; None for a library that is called.
        offline: For a library: runs jobs so many at a time.
        pids: The processes whose memory is its own.
    """

    name: str
    facts: Facts
    pids: Callable[[], list[int]]
    server: Server | None = None
    offline: Callable[[Sequence[Job], int], Measured] | None = None

    async def run(self, jobs: Sequence[Job], concurrency: int) -> Measured:
        """All jobs, so many at a time."""
        if self.server is not None:
            return await burst(self.server, jobs, concurrency)
        assert self.offline is not None
        return self.offline(jobs, concurrency)

    def resident_mb(self) -> float:
        """Its proportional share of the memory in use (PSS), its children's too."""
        family = {process.pid: process for pid in self.pids() for process in _family(pid)}
        return sum(process.memory_full_info().pss for process in family.values()) / 1e6


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def folder_bytes(folder: Path) -> int:
    """What a folder takes on disk, hard links counted once."""
    seen = {(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for stat in _stats(folder)}
    return sum(seen.values())


def _stats(folder: Path) -> Iterator[os.stat_result]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.stat()


def environment_of(variable: str) -> Path:
    """The environment whose interpreter a variable of the set-up names."""
    return Path(os.environ[variable]).parents[1]


@contextmanager
def ours(runtime: str, model: Path, scratch: Path) -> Iterator[list[Contender]]:
    """A whole server with one deployment: through its gateway, and the same engine asked directly."""
    python = {"openvino": "OPENVINO", "transformers": "ENGINE", "vllm": "VLLM"}[runtime]
    with running_server(scratch / runtime) as server:
        options = ("--name", MODEL, "--runtime", runtime, "--max-model-len", str(MAX_MODEL_LEN), "--json")
        server.cli("deploy", str(model), *options)
        snapshot = msgspec.json.decode(Layout(server.data_dir).snapshot.read_bytes(), type=RoutingSnapshot)
        [endpoint] = snapshot.endpoints
        [deployed] = endpoint.deployed
        [replica] = deployed.replicas
        facts = Facts(_started_s(server), folder_bytes(environment_of(f"HEADRACE_TEST_{python}_PYTHON")))
        engine = Server(deployed.served_name, replica.nonce, uds=replica.address.removeprefix("unix:"))
        through = Server(_endpoint_name(server), server.key, port=httpx.URL(server.url).port or 80)
        yield [
            Contender(f"{runtime}, gateway", facts, lambda: list(server.processes()), through),
            Contender(f"{runtime}, direct", facts, lambda: _engine_pids(server), engine),
        ]


def _endpoint_name(server: ServerProcess) -> str:
    with server.client() as client:
        name: str = client.get("/v1/models").json()["data"][0]["id"]
        return name


def _engine_pids(server: ServerProcess) -> list[int]:
    shims = server.pids("headrace.compute.shim")
    return [child.pid for shim in shims for child in psutil.Process(shim).children()]


def _started_s(server: ServerProcess) -> float:
    """From the engine's start to the first answer, as the deployment's timeline has it."""
    with server.client() as client:
        [deployment] = client.get("/headrace/v1/deployments").json()["deployments"]
        timeline = client.get(f"/headrace/v1/deployments/{deployment['id']}").json()["timeline"]
    at: dict[str, float] = {}
    for move in timeline:
        at.setdefault(move["state"], move["at"])
    return at["READY"] - at["STARTING"]


@contextmanager
def vllm_by_hand(model: Path, scratch: Path) -> Iterator[list[Contender]]:
    """The server that vLLM brings, as documented for a CPU: both cores bound, compiled where g++ is there."""
    server = Server(MODEL, uds=str(scratch / "vllm.sock"))
    with vllm_server(model, server, CORES, "--max-model-len", str(MAX_MODEL_LEN)) as (process, ready_s):
        facts = Facts(ready_s, folder_bytes(environment_of("HEADRACE_TEST_VLLM_PYTHON")))
        yield [Contender("vLLM's own server", facts, lambda: [process.pid], server)]


@contextmanager
def vllm_server(
    model: Path, server: Server, cores: Sequence[int], *more: str
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """VLLM's own server on these cores, with its log beside its socket; yields how long it took to be ready, too."""
    log = Path(server.uds).with_suffix(".log")
    arguments = ["--model", model, "--served-model-name", server.model, "--dtype", "bfloat16", "--uds", server.uds]
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "PYTHONPATH": str(ROOT / "src" / "headrace_engines" / "vllm" / "every_process"),  # else torchvision ends it
    }
    if not shutil.which("g++"):
        arguments.append("--enforce-eager")
        print("No g++ here: vLLM's own server runs without being compiled, some 5 to 20 % slower.")
    python = environment_of("HEADRACE_TEST_VLLM_PYTHON") / "bin" / "python"
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *arguments, *more]
    with _running(command, variables, log) as process:
        yield process, _await_health(process, server, log)


@contextmanager
def transformers_serve(model: Path, scratch: Path) -> Iterator[list[Contender]]:
    """``transformers serve`` with its continuous batching, its cache sized as the measured notes found it to need."""
    environment = environment_of("HEADRACE_BENCH_SERVE_PYTHON")
    port = _free_port()
    arguments = [model, "--device", "cpu", "--dtype", "bfloat16", "--continuous-batching", "--port", str(port)]
    arguments += ["--attn-implementation", "sdpa", "--cb-num-blocks", "1024", "--cb-max-batch-tokens", "512"]
    command = [environment / "bin" / "transformers", "serve", *arguments]
    with _running(command, {}, scratch / "serve.log") as process:
        server = Server(str(model), port=port, to_the_end=False)
        ready_s = _await_health(process, server, scratch / "serve.log")
        facts = Facts(ready_s, folder_bytes(environment))
        yield [Contender("transformers serve", facts, lambda: [process.pid], server)]


@contextmanager
def library(name: str, program: str, variable: str, model: Path, scratch: Path) -> Iterator[list[Contender]]:
    """A library without any server: a program of ours calls it, and takes jobs as lines of JSON."""
    environment = environment_of(variable)
    command = [environment / "bin" / "python", "-P", ROOT / "bench" / program, model, str(len(CORES))]
    with _running(command, {}, scratch / f"{program}.log", pipes=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        began_s = time.monotonic()
        assert process.stdout.readline() == b"ready\n", (scratch / f"{program}.log").read_text()[-3000:]
        facts = Facts(time.monotonic() - began_s, folder_bytes(environment))

        def run(jobs: Sequence[Job], concurrency: int) -> Measured:
            given = {"prompts": [job.prompt for job in jobs], "max_tokens": jobs[0].max_tokens}
            process.stdin.write(json.dumps(given | {"concurrency": concurrency}).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            return Measured(answer["wall_s"], [], offline_tokens=answer["tokens"])

        yield [Contender(name, facts, lambda: [process.pid], offline=run)]


@contextmanager
def _running(
    command: Sequence[Any], variables: dict[str, str], log: Path, *, pipes: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A process without a hub to ask, ended with its children."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(len(CORES)), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE if pipes else None
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            env=inherited | quiet | variables,
            stdin=pipe,
            stdout=pipe or output,
            stderr=output,
            cwd=log.parent,
        )
    try:
        yield process
    finally:
        family = _family(process.pid) if process.poll() is None else []
        for member in family:
            member.kill()
        process.wait()


def _await_health(process: subprocess.Popen[bytes], server: Server, log: Path) -> float:
    began_s = time.monotonic()
    transport = httpx.HTTPTransport(uds=server.uds or None)
    with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{server.port or 80}", timeout=5) as client:
        while True:
            try:
                if client.get("/health").status_code == 200:
                    return time.monotonic() - began_s
            except httpx.TransportError:
                pass
            assert process.poll() is None, f"It ended before it was ready:\n{log.read_text()[-3000:]}"
            assert time.monotonic() - began_s < START_TIMEOUT_S
            time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
