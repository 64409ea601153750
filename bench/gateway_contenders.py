"""Who takes part in ``bench/gateway.py``, and how each is started: one process each, on the core of the proxies."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

import gateway_nginx
from gateway_nginx import MODEL, PATH
from gateway_streams import chat_body
from headrace.resources.access import EVERY_PROJECT, Principal, Role, secret_hash
from headrace.resources.layout import Layout
from headrace.resources.limits import KeyLimits
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.snapshot import DeployedRoute, EndpointRoute, KeyRoute, ReplicaRoute, RoutingSnapshot

BENCH = Path(__file__).resolve().parent
KEY = "sk-bench-gateway"
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
UNBOUNDED = 100_000
"""Of requests that run: the benchmark asks what the gateway carries, not what it lets in."""

NO_LIMITS = KeyLimits()

_NO_DETOUR = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

DIRECT, NGINX = "direct", "nginx"
BARE, OURS, BEFORE = "bare", "ours", "before"
"""Our server and client with nothing between them; the gateway with everything on; the gateway of another checkout."""


class NotStarted(Exception):
    """A contender cannot take part; the message says why."""


class Running(NamedTuple):
    """A contender that answers."""

    pid: int
    port: int


@dataclass(frozen=True)
class Place:
    """Where contenders run.

    Attributes:
        folder: For their files, one folder each.
        core: The proxies'.
        engine_port: Of the engine behind them.
    """

    folder: Path
    core: int
    engine_port: int


Start = Callable[[Place], AbstractContextManager[Running]]


def contenders(before: Path | None) -> Mapping[str, Start]:
    """Everyone by name, in the order of the table.

    Args:
        before: Another checkout, whose gateway takes part too; None without one.
    """
    ours: dict[str, Start] = {BARE: partial(_program, BARE, "gateway_bare.py"), OURS: partial(gateway, OURS, None)}
    if before is not None:
        ours[BEFORE] = partial(gateway, BEFORE, before)
    return {
        DIRECT: _direct,
        NGINX: _nginx,
        **ours,
        "vllm-router": _vllm_router,
        "FastAPI + httpx": partial(_program, "fastapi", "gateway_fastapi.py"),
        "litellm": _litellm,
    }


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def started(
    command: Sequence[str],
    *,
    core: int,
    port: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Running]:
    """A server on one core, from its first whole answer to the block's end.

    Raises:
        NotStarted: It ended, or did not answer in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            env=os.environ | _NO_DETOUR | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
        )
    try:
        _await_answer(process, port, log)
        yield Running(process.pid, port)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    seen = "nothing listens"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotStarted(f"it ended with {process.returncode}: {_last_line(log)}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            connection.request("POST", PATH, chat_body(max_tokens=8), headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                return
            seen = f"HTTP {answer.status}: {body[:200]!r}"
        time.sleep(0.1)
    raise NotStarted(f"no answer within {READY_TIMEOUT_S:g} s: {seen}; {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"


def _direct(place: Place) -> AbstractContextManager[Running]:
    """The engine itself, on the proxies' core: so its client is woken across cores, as a proxy's is."""
    folder, port = place.folder / "direct", free_port()
    return started(gateway_nginx.engine(folder, port), core=place.core, port=port, log=folder / "log")


def _nginx(place: Place) -> AbstractContextManager[Running]:
    folder, port = place.folder / "nginx", free_port()
    command = gateway_nginx.proxy(folder, port, place.engine_port)
    return started(command, core=place.core, port=port, log=folder / "log")


def _program(name: str, program: str, place: Place) -> AbstractContextManager[Running]:
    """One of the small proxies beside this file."""
    port = free_port()
    command = [sys.executable, str(BENCH / program), str(port), str(place.engine_port)]
    return started(command, core=place.core, port=port, log=place.folder / name / "log")


@contextlib.contextmanager
def gateway(
    name: str,
    checkout: Path | None,
    place: Place,
    *,
    limits: KeyLimits = NO_LIMITS,
    more: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    snapshot: RoutingSnapshot | None = None,
) -> Iterator[Running]:
    """The gateway's own process: it needs no control plane, for it routes by the snapshot that it finds.

    Args:
        name: Of its data directory.
        checkout: Whose code it runs; None for this one's.
        place: Where it runs.
        limits: Of the benchmark's key.
        more: Options of its command line.
        pass_fds: What these name.
        snapshot: What it routes by; None: one endpoint with one engine.
    """
    layout = _data_dir(name, place, limits, snapshot)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=2048) as listener,
        _gateway_process(layout, place, listener, checkout=checkout, options=more, pass_fds=pass_fds) as running,
    ):
        yield running


@contextlib.contextmanager
def gateways(place: Place, number: int) -> Iterator[list[Running]]:
    """So many gateways on one port, among which the kernel deals out the connections."""
    layout, port = _data_dir("gateways", place, NO_LIMITS), 0
    with contextlib.ExitStack() as stack:
        running = []
        for own in range(number):
            # A socket is there once its gateway starts: what the kernel deals to it would wait for that.
            listener = socket.create_server(("127.0.0.1", port), backlog=2048, reuse_port=True)
            port = stack.enter_context(listener).getsockname()[1]
            options = ("--number", str(own), "--gateways", str(number))
            running.append(stack.enter_context(_gateway_process(layout, place, listener, options=options)))
        yield running


def _data_dir(name: str, place: Place, limits: KeyLimits, snapshot: RoutingSnapshot | None = None) -> Layout:
    layout = Layout(place.folder / name)
    layout.run_dir.mkdir(parents=True, mode=0o700)
    layout.snapshot.parent.mkdir()
    layout.internal_token.write_text(secrets.token_urlsafe())
    layout.snapshot.write_bytes(msgspec.json.encode(snapshot or one_engine(place.engine_port, limits)))
    return layout


@contextlib.contextmanager
def _gateway_process(
    layout: Layout,
    place: Place,
    listener: socket.socket,
    *,
    checkout: Path | None = None,
    options: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> Iterator[Running]:
    environment = {} if checkout is None else {"PYTHONPATH": str(checkout / "src")}
    told, tell = os.pipe()
    with os.fdopen(told), os.fdopen(tell, "w"):
        command = ["--data-dir", str(layout.data_dir), "--parent", str(os.getpid()), "--notify-fd", str(tell)]
        command += ["--listen-fd", str(listener.fileno()), "--drain-timeout-s", "1", "--stall-timeout-s", "600"]
        with started(
            [sys.executable, "-m", "headrace.server.gateway", *command, *options],
            core=place.core,
            port=listener.getsockname()[1],
            log=layout.data_dir / "log",
            environment=environment,
            pass_fds=(tell, listener.fileno(), *pass_fds),
        ) as running:
            yield running


def one_engine(engine_port: int, limits: KeyLimits = NO_LIMITS) -> RoutingSnapshot:
    """One endpoint with one engine, and a key that may ask."""
    deployed = DeployedRoute(
        id="2",
        deployment_id="3",
        traffic=100,
        model=DEFAULT_SCOPE.name("models", "4"),
        model_version="1",
        model_display_name=MODEL,
        served_name=MODEL,
        max_model_len=4096,
        created_at=0,
        max_running=UNBOUNDED,
        replicas=(ReplicaRoute(id="1", epoch=1, address=f"http://127.0.0.1:{engine_port}", nonce="nonce"),),
    )
    principal = Principal(key_id="5", name="bench", project=EVERY_PROJECT, role=Role.ADMIN)
    endpoint = EndpointRoute(scope=DEFAULT_SCOPE, id="6", display_name=MODEL, deployed=(deployed,))
    key = KeyRoute(secret_hash=secret_hash(KEY), principal=principal, limits=limits)
    return RoutingSnapshot(generation=1, endpoints=(endpoint,), keys=(key,))


def installed(variable: str) -> Path:
    """The ``bin`` folder of an environment that ``make bench-gateway`` made."""
    python = os.environ.get(variable, "it is installed by `make bench-gateway` only")
    if not Path(python).is_file():
        raise NotStarted(python)
    return Path(python).parent


def _vllm_router(place: Place) -> AbstractContextManager[Running]:
    port = free_port()
    command = [str(installed("HEADRACE_BENCH_VLLM_ROUTER") / "vllm-router"), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--worker-urls", f"http://127.0.0.1:{place.engine_port}"]
    command += ["--policy", "round_robin", "--log-level", "warning", "--prometheus-port", str(free_port())]
    return started(command, core=place.core, port=port, log=place.folder / "vllm-router" / "log")


def _litellm(place: Place) -> AbstractContextManager[Running]:
    """One worker, no database; it is not told to load prices or to report home."""
    folder, port = place.folder / "litellm", free_port()
    folder.mkdir()
    configuration = folder / "config.yaml"
    configuration.write_text(
        f"model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n"
        f"      api_base: http://127.0.0.1:{place.engine_port}/v1\n      api_key: none\n"
    )
    command = [str(installed("HEADRACE_BENCH_LITELLM") / "litellm"), "--config", str(configuration)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": KEY}
    return started(command, core=place.core, port=port, log=folder / "log", environment=environment)
