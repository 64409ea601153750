"""Two tenants before one real engine: how it is started and measured, who stands before it, and how it is loaded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
from msgspec.structs import replace

from engine_client import Answer, Job, Prompts, Server, replay
from engine_contenders import CORES, running_server
from gateway_contenders import BENCH, KEY, Place, free_port, gateway, installed, one_engine, started
from gateway_nginx import MODEL
from headrace.resources.access import EVERY_PROJECT, Principal, Role, secret_hash
from headrace.resources.layout import Layout
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.profiles import Carried, Cost
from headrace.resources.snapshot import DeployedRoute, EndpointRoute, KeyRoute, ProvisionRoute, RoutingSnapshot
from report import quantile

FIRST_S, GAP_S = 2.0, 0.2
"""The profile's SLO, time to first token and inter-token latency: `headrace profile` finds the concurrency for it."""

QUICK_SLO_S = 30.0, 3.0
"""To see that it works, on a machine that does other things too."""

MAX_MODEL_LEN = 2048
IDLE_TIMEOUT_S = 120.0
KEY_B = "sk-bench-other"


class Engine(NamedTuple):
    """A real engine that the product has started.

    Attributes:
        route: As the product's gateway routes to it.
        server: Asked directly.
        carried: What it was measured to carry.
    """

    route: DeployedRoute
    server: Server
    carried: Carried


class Tenants(NamedTuple):
    """Where each of the two asks."""

    a: Server
    b: Server


@contextmanager
def profiled_engine(scratch: Path, *, quick: bool) -> Iterator[Engine]:
    """One engine by `headrace deploy`, and its profile by `headrace profile`."""
    with running_server(scratch / "server") as server:
        model = os.environ["HEADRACE_TEST_MODEL"]
        server.cli("deploy", model, "--name", "river", "--runtime", "openvino", "--max-model-len", str(MAX_MODEL_LEN))
        grid = ("--prompts", "32,128", "--outputs", "8,32", "--at", "1,4,8,16" if not quick else "1,8")
        first_s, gap_s = QUICK_SLO_S if quick else (FIRST_S, GAP_S)
        slo = ("--first-token", str(first_s), "--inter-token", str(gap_s))
        seconds = ("--seconds", "1" if quick else "3")
        found = json.loads(server.cli("profile", "river", *grid, *slo, *seconds, "--json", timeout_s=900).stdout)
        cost = msgspec.convert(found["fit"]["cost"], Cost)
        print(f"profile: {found['concurrency']} at a time, {found['tokens_per_s']:.0f} tokens/s, {cost}", flush=True)
        if not found["concurrency"]:
            sys.exit("error: not one request at a time keeps the latencies here; measure on an idle machine")
        carried = Carried(
            cost=cost, concurrency=found["concurrency"], first_s=first_s, gap_s=gap_s, measured=True, profile_id="bench"
        )
        snapshot = msgspec.json.decode(Layout(server.data_dir).snapshot.read_bytes(), type=RoutingSnapshot)
        [endpoint] = snapshot.endpoints
        [route] = endpoint.deployed
        [replica] = route.replicas
        direct = Server(route.served_name, replica.nonce, uds=replica.address.removeprefix("unix:"))
        yield Engine(route, direct, carried)


@contextmanager
def provisioned_endpoint(
    engine: Engine, folder: Path, *, guaranteed: float, most: float, places: int = 0
) -> Iterator[Tenants]:
    """Our gateway before the engine: A was sold so many replicas, B none, and both are on one deployment.

    The snapshot is written here, as control would write it, for a gateway of its own.

    Args:
        engine: What answers.
        folder: For the gateway's files.
        guaranteed: Of A; 0: nobody was sold anything.
        most: Of A.
        places: That the engine has where nobody was sold anything; 0: as the product has it.
    """
    sold = ProvisionRoute(carried=engine.carried, guaranteed=guaranteed, most=most) if guaranteed else None
    none = ProvisionRoute(carried=engine.carried, guaranteed=0.0, most=1e6) if guaranteed else None
    one = replace(engine.route, max_running=places) if places else engine.route
    endpoints = tuple(
        EndpointRoute(
            scope=DEFAULT_SCOPE,
            id=f"e-{name}",
            display_name=name,
            deployed=(replace(one, id=f"d-{name}", provision=provision),),
        )
        for name, provision in (("a", sold), ("b", none), (MODEL, none))
    )
    other = Principal(key_id="6", name="other", project=EVERY_PROJECT, role=Role.ADMIN)
    keys = (*one_engine(1).keys, KeyRoute(secret_hash=secret_hash(KEY_B), principal=other))
    snapshot = RoutingSnapshot(generation=1, endpoints=endpoints, keys=keys)
    place = Place(folder, CORES[0], 0)
    with gateway("guarantee", None, place, snapshot=snapshot) as running:
        yield Tenants(Server("a", KEY, port=running.port), Server("b", KEY_B, port=running.port))


@contextmanager
def bare_engine(engine: Engine) -> Iterator[Tenants]:
    """Nobody stands before the engine."""
    yield Tenants(engine.server, engine.server)


@contextmanager
def litellm(engine: Engine, folder: Path, *, a_per_minute: float, b_per_minute: float) -> Iterator[Tenants]:
    """LiteLLM's proxy with a limit of requests a minute for each tenant's model: what it has without a database.

    All requests here are alike, so that requests are as good a measure as work.

    Raises:
        NotStarted: It is not installed, or does not answer.
    """
    folder.mkdir(parents=True)
    relay_port, port = free_port(), free_port()
    relay = [sys.executable, str(BENCH / "unix_relay.py"), str(relay_port), engine.server.uds]
    limits = {"a": round(a_per_minute), "b": round(b_per_minute)}
    provider = {MODEL: "openai", "a": "text-completion-openai", "b": "text-completion-openai"}
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"{provider[name]}/{engine.server.model}",
                "api_base": f"http://127.0.0.1:{relay_port}/v1",
                "api_key": engine.server.key,
                **({"rpm": limits[name], "extra_body": {"ignore_eos": True}} if name in limits else {}),
            },
        }
        for name in provider
    ]
    settings = {"enable_pre_call_checks": True, "num_retries": 0, "disable_cooldowns": True}
    configuration = folder / "config.yaml"
    configuration.write_text(json.dumps({"model_list": models, "router_settings": settings}))  # JSON is YAML
    command = [str(installed("HEADRACE_BENCH_LITELLM") / "litellm"), "--config", str(configuration)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": KEY}
    with (
        _relayed(relay, relay_port),
        started(command, core=CORES[0], port=port, log=folder / "log", environment=environment),
    ):
        yield Tenants(*(Server(name, KEY, port=port, to_the_end=False) for name in limits))


@contextmanager
def _relayed(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), contextlib.closing(_connected(port)):
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=1)


class Turn(NamedTuple):
    """What A got in one run.

    Attributes:
        offered: Its requests.
        answers: Those that were answered whole.
        b_answered: Of B's requests.
        b_offered: B's.
        cpu_share: Of a core that the load itself used.
        slo: The profile's.
    """

    offered: int
    answers: list[Answer]
    b_answered: int
    b_offered: int
    cpu_share: float
    slo: Carried

    @property
    def within_slo(self) -> float:
        """The share of A's work that was answered with its first token and its mean inter-token latency in the SLO."""
        slo = self.slo
        good = sum(each.first_s <= slo.first_s and _mean(each.gaps_s) <= slo.gap_s for each in self.answers)
        return good / self.offered

    def first_s(self, share: float) -> float:
        """A quantile of A's times to first token; a request that was not answered never has one."""
        times = [answer.first_s for answer in self.answers]
        return quantile([*times, *[float("inf")] * (self.offered - len(times))], share)


def _mean(gaps_s: Sequence[float]) -> float:
    return sum(gaps_s) / len(gaps_s) if gaps_s else 0.0


def arrivals(words: Prompts, rng: random.Random, per_s: float, seconds: float, shape: tuple[int, int]) -> list[Job]:
    """Requests alike, at random times."""
    jobs, at_s = [], rng.expovariate(per_s)
    while at_s < seconds:
        jobs.append(Job(words.text(shape[0]), shape[1], at_s))
        at_s += rng.expovariate(per_s)
    return jobs


async def attack(tenants: Tenants, a: Sequence[Job], b: Sequence[Job], slo: Carried) -> Turn:
    """A's requests at their times, and B's until A has its answers; what B still waits for then is hung up."""
    began_s, cpu_s = time.perf_counter(), time.process_time()
    flood = [asyncio.create_task(replay(tenants.b, [job])) for job in b]
    measured = await replay(tenants.a, a)
    share = (time.process_time() - cpu_s) / (time.perf_counter() - began_s)
    answered = sum(len(each.result().answers) for each in flood if each.done())
    for each in flood:
        each.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    return Turn(len(a), measured.answers, answered, len(b), share, slo)


async def await_idle(engine: Engine) -> None:
    """Wait until nothing runs or waits in the engine."""
    transport = httpx.AsyncHTTPTransport(uds=engine.server.uds)
    async with (
        asyncio.timeout(IDLE_TIMEOUT_S),
        httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30) as client,
    ):
        while True:
            text = (await client.get("/metrics", headers={"authorization": f"Bearer {engine.server.key}"})).text
            names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
            lines = [line for line in text.splitlines() if line.startswith(names)]
            if not any(float(line.rpartition(" ")[2]) for line in lines):
                return
            await asyncio.sleep(0.2)


Front = AbstractContextManager[Tenants]
"""Somebody before the engine, started with the block."""
