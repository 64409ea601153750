"""Admission by itself, in one process and without a socket: decisions a second, and the memory of who may ask."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from headrace.contracts.openai.need import need_of
from headrace.contracts.openai.requests import read_object
from headrace.contracts.openai.usage import Usage
from headrace.gateway.budgets import Budgets
from headrace.gateway.fair_queue import Visit
from headrace.gateway.handover import Handover
from headrace.gateway.limit_notes import LimitNote, LimitNotes
from headrace.gateway.routing import Routing
from headrace.gateway.work import expected_work, used_work
from headrace.resources.access import EVERY_PROJECT, Principal, Role, secret_hash
from headrace.resources.limits import KeyLimits
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.priority import Priority
from headrace.resources.profiles import Carried, Cost
from headrace.resources.snapshot import (
    DeployedRoute,
    EndpointRoute,
    KeyRoute,
    ProvisionRoute,
    ReplicaRoute,
    RoutingSnapshot,
)

COST = Cost(prompt=1e-4, prompt_squared=1e-8, step=2e-2, sequence=1e-3, context=1e-7)
PATH = "/v1/chat/completions"
SIZE_BYTES = 100
PLENTY = 10**12
"""Of a limit that is counted and never reached."""


class Decided(NamedTuple):
    """What it came to.

    Attributes:
        per_s: Requests that were let in, and left, in a second of a processor's time.
        snapshot_mb: What it takes to know of all keys and endpoints.
        used_mb: What is added once each was asked, or showed.
    """

    per_s: float
    snapshot_mb: float
    used_mb: float


class _Silent(LimitNotes):
    """Tells no other gateway: files are not what is measured."""

    def write(self, note: LimitNote) -> None:
        """Nothing."""


def _resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def _snapshot(keys: int, endpoints: int, *, sold: bool) -> RoutingSnapshot:
    carried = Carried(cost=COST, concurrency=32, first_s=1.0, gap_s=0.1)
    provision = ProvisionRoute(carried=carried, guaranteed=1e3, most=1e6) if sold else None
    limits = KeyLimits(tokens_per_minute=PLENTY, requests_per_minute=PLENTY)
    return RoutingSnapshot(
        generation=1,
        endpoints=tuple(
            EndpointRoute(
                scope=DEFAULT_SCOPE,
                id=f"{number}",
                display_name=f"endpoint-{number}",
                deployed=(
                    DeployedRoute(
                        id=f"d{number}",
                        deployment_id=f"p{number}",
                        traffic=100,
                        model=DEFAULT_SCOPE.name("models", f"{number}"),
                        model_version="1",
                        model_display_name="",
                        served_name="served",
                        max_model_len=4096,
                        created_at=0.0,
                        provision=provision,
                        replicas=(ReplicaRoute(id=f"r{number}", epoch=1, address="unix:/nowhere", nonce="nonce"),),
                    ),
                ),
            )
            for number in range(endpoints)
        ),
        keys=tuple(
            KeyRoute(
                secret_hash=secret_hash(f"sk-{number}"),
                principal=Principal(key_id=f"k{number}", name="", project=EVERY_PROJECT, role=Role.PREDICTOR),
                limits=limits,
            )
            for number in range(keys)
        ),
    )


def decided(keys: int, endpoints: int, seconds: float, *, sold: bool) -> Decided:
    """As `decide`, in a process of its own: what the one before has left would be counted as memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(_decided, keys, endpoints, seconds, sold).result()


def _decided(keys: int, endpoints: int, seconds: float, sold: bool) -> Decided:
    return asyncio.run(decide(keys, endpoints, seconds, sold=sold))


async def decide(keys: int, endpoints: int, seconds: float, *, sold: bool) -> Decided:
    """Decide about a key and an endpoint by chance, again and again.

    Work is estimated and claimed, and of the key's limits too; the request takes a place and leaves it; all is settled.
    """
    before_mb = _resident_mb()
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as folder:
        path = Path(folder) / "snapshot.json"
        budgets = Budgets(_Silent(path))
        routing = Routing(connect_timeout_s=1.0, handover=Handover(path), budgets=budgets)
        routing.follow(_snapshot(keys, endpoints, sold=sold))
        snapshot_mb = _resident_mb() - before_mb
        chat = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 64}
        body = read_object(msgspec.json.encode(chat))  # as every request's is, whatever was sold
        rng = random.Random(7)
        for number in range(max(keys, endpoints)):
            await _one(routing, number % keys, number % endpoints, body)
        used_mb = _resident_mb() - before_mb - snapshot_mb
        done, began = 0, time.process_time()
        while time.process_time() - began < seconds:
            for _ in range(100):
                await _one(routing, rng.randrange(keys), rng.randrange(endpoints), body)
            done += 100
        per_s = done / (time.process_time() - began)
        budgets.close()
    return Decided(per_s, snapshot_mb, used_mb)


async def _one(routing: Routing, key: int, number: int, body: Mapping[str, msgspec.Raw]) -> None:
    endpoint = routing.table.snapshot.endpoints[number]
    [deployed] = endpoint.deployed
    budget, room = routing.budgets.of(f"k{key}"), routing.fleet.pools[deployed.deployment_id].room
    assert budget is not None
    reservation = budget.reserve(100)
    visit, claim = Visit(f"k{key}", prompt_tokens=20), None
    found = routing.throughputs.of(endpoint, deployed)
    if found is not None:
        throughput, limit = found
        needs = [need_of(PATH, body)]
        work = expected_work(
            throughput.provision.carried, needs, throughput.expectation, size_bytes=SIZE_BYTES, max_model_len=4096
        )
        claim = await throughput.claim(limit, work)
        if claim.guaranteed:
            visit = Visit(throughput.tenant, Priority.GUARANTEED, prompt_tokens=20)
    await room.come_in(visit, nullcontext)
    visit.used = Usage(20, 64)
    if claim is not None:
        claim.begin()
        claim.charge(used_work(claim.throughput.provision.carried, visit.used))
    room.depart(visit)
    if claim is not None:
        claim.settle(exact=True)
    reservation.settle(84)
