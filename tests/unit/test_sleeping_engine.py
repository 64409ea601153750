"""Scale to zero with an engine that can sleep, through gateway, control and node as they are; only the engine is a
stand-in, as vLLM can sleep on GPUs alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_serving import serving
from node_standins import TOKEN, ScriptedRuntime, listening
from test_node_agent import agent, killed_agent, layout, model, nothing_runs
from test_node_sleep import let_go, until_waiting

from headrace.api import create_app
from headrace.control import Checked, HttpGatewayClient, Reconciler
from headrace.control.commands import DeployRequest, create_key, deploy
from headrace.gateway import Gateway
from headrace.node import Agent
from headrace.resources.access import Role
from headrace.resources.assignments import StageOrder
from headrace.resources.deployments import Deployment, MachineSpec, Replica
from headrace.resources.layout import Layout
from headrace.resources.models import ModelVersion
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.nodes import Node
from headrace.resources.states import ReplicaState
from headrace.store import Store, Transaction, migrate

__all__ = ["layout", "model"]  # fixtures

AWAKE = (ReplicaState.READY, ReplicaState.DOZING, ReplicaState.ASLEEP)
"""Of an engine that answered; it may have fallen asleep again since."""

ASK: dict[str, Any] = {"prompt": "hi", "max_tokens": 4, "stream": True}


class Accepts:
    """A checker that has nothing against the model."""

    def __init__(self, model: StageOrder) -> None:
        self._fingerprint = model.fingerprint

    def check(self, version: ModelVersion, node: Node, machine: MachineSpec) -> Checked:
        """As `Checker.check`."""
        return Checked(
            fingerprint=self._fingerprint, runtime="scripted", max_model_len=2048, memory_bytes=1, model_bytes=1
        )


class House:
    """Everybody.

    Attributes:
        client: Of the gateway's public port, with a key.
        runtime: Remembers every engine that was launched.
    """

    def __init__(self, layout: Layout, store: Store, client: httpx.AsyncClient) -> None:
        self.layout, self.client = layout, client
        self.runtime = ScriptedRuntime(sleeps=True)
        self._store = store
        self._killed: subprocess.Popen[bytes] | None = None
        self._agent: Agent | None = None
        self._working: asyncio.Task[None] | None = None

    async def start_node(self) -> None:
        """A new agent of the machine, which finds what the one before left running."""
        if self._agent is not None and self._working is not None:
            await self._agent.stop(keep_replicas=True)
            await self._working
        self._agent = agent(self.layout, runtime=self.runtime)
        self._working = asyncio.create_task(self._agent.run())

    def start_killed_node(self) -> None:
        """An agent in a process of its own."""
        self._killed = killed_agent(self.layout, sleeps=True)

    async def kill_node(self) -> None:
        """That one, without a word, if there was one."""
        if self._killed is not None:
            self._killed.kill()
            await asyncio.to_thread(self._killed.wait)

    async def stop(self) -> None:
        """Nothing is left running."""
        assert self._agent is not None
        assert self._working is not None
        await self._agent.stop()
        await self._working

    async def read(self, work: Callable[[Transaction], Any]) -> Any:
        """What is stored."""
        return await self._store.run(work, read_only=True)

    async def write(self, work: Callable[[Transaction], Any]) -> Any:
        """Do this."""
        return await self._store.run(work)

    async def replica(self, *states: str) -> Replica:
        """Wait until the newest replica is in one of these states."""
        async with asyncio.timeout(60):
            while True:
                rows = await self.read(lambda tx: tx.list(Replica))
                newest: Replica | None = max(rows, key=lambda row: row.epoch, default=None)
                if newest is not None and newest.state in states:
                    return newest
                await asyncio.sleep(0.02)  # control tells nobody of its rows

    async def told(self) -> list[str]:
        """The sentences of the deployment's timeline."""

        def read(tx: Transaction) -> list[str]:
            (deployment,) = tx.list(Deployment)
            return [move.detail for move in tx.timelines.during("deployment", deployment.id, 0.0)]

        told: list[str] = await self.read(read)
        return told

    async def ask(self, name: str = "sleeper") -> None:
        """One request, answered to its end."""
        answer = await self.client.post("/v1/completions", json=ASK | {"model": name})
        assert answer.status_code == 200, answer.text
        assert answer.text.rstrip().endswith("data: [DONE]"), answer.text


@contextlib.asynccontextmanager
async def house(
    layout: Layout, model: StageOrder, name: str = "sleeper", *, killed_node: bool = False
) -> AsyncIterator[House]:
    """A deployment that becomes READY, and falls asleep whenever nobody has asked for a second."""
    for folder in (layout.data_dir, layout.run_dir):  # where the one has a long name, the other is not in it
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = f"sqlite:///{layout.data_dir}/headrace.db"
    migrate(url)
    store = Store(url)
    reconciler = Reconciler(store, HttpGatewayClient(layout.gateway_socket, TOKEN), checker=Accepts(model))
    gateway = Gateway(snapshot_path=layout.snapshot, control_address=f"unix:{layout.control_socket}", admin_token=TOKEN)
    request = DeployRequest(
        scope=DEFAULT_SCOPE,
        artifact_uri=model.artifact_uri,
        contract="test",
        model_display_name=name,
        endpoint_display_name=name,
        scale_to_zero_after_s=1.0,
    )
    _, secret = await store.run(lambda tx: create_key(tx, name="n", project="*", role=Role.ADMIN, now=time.time()))
    async with (
        listening(create_app(store, reconciler, layout, internal_token=TOKEN), layout),
        serving(gateway.handle) as public,
        serving(gateway.admin.handle, uds=layout.gateway_socket),
        httpx.AsyncClient(base_url=public, headers={"authorization": f"Bearer {secret}"}, timeout=60) as client,
    ):
        reconciling = asyncio.create_task(reconciler.run())
        everybody = House(layout, store, client)
        if killed_node:
            everybody.start_killed_node()
        else:
            await everybody.start_node()
        await everybody.write(lambda tx: deploy(tx, request, now=time.time()))
        reconciler.wake()
        try:
            yield everybody
            await everybody.stop()
        finally:
            await everybody.kill_node()
            reconciling.cancel()
            await asyncio.gather(reconciling, return_exceptions=True)
            store.close()
            await gateway.close()
    assert nothing_runs(layout)


def test_it_sleeps_and_the_next_request_wakes_it(layout: Layout, model: StageOrder) -> None:
    """Answered by the same process; the timeline says how long both took; nobody outside reaches the engine's routes
    for it."""

    async def live() -> None:
        async with house(layout, model) as all_of_it:
            before = await all_of_it.replica("ASLEEP")
            for path in ("/sleep", "/wake_up", "/is_sleeping", "/collective_rpc"):
                assert (await all_of_it.client.post(path)).status_code == 404
            assert (await all_of_it.replica("ASLEEP")).pid == before.pid
            await all_of_it.ask()
            assert (await all_of_it.replica(*AWAKE)).pid == before.pid
            sentences = " ".join(await all_of_it.told())
            assert "Sleeping, memory released in 0." in sentences
            assert "Awake after 0." in sentences
            assert len(all_of_it.runtime.launches) == 1

    asyncio.run(live())


def test_who_asks_while_it_falls_asleep_is_answered(layout: Layout, model: StageOrder) -> None:
    """They come when the engine has begun and is not done, wait, and are all answered by it once it woke."""

    async def live() -> None:
        async with house(layout, model) as all_of_it:
            replica = await all_of_it.replica(*ReplicaState)
            gate = Path(f"{layout.engine_socket(replica.id)}.gate")
            os.mkfifo(gate)
            await all_of_it.replica("DOZING")
            await until_waiting(layout, replica.id)
            asked = [asyncio.create_task(all_of_it.ask()) for _ in range(8)]
            await asyncio.to_thread(let_go, gate)
            await until_waiting(layout, replica.id, times=2)
            assert not any(task.done() for task in asked)
            await asyncio.to_thread(let_go, gate)
            await asyncio.gather(*asked)
            assert len(all_of_it.runtime.launches) == 1

    asyncio.run(live())


@pytest.mark.parametrize("name", ["sleeper-refuses", "sleeper-dies"])
def test_who_waits_for_one_that_does_not_wake_is_answered_by_a_new_one(
    layout: Layout, model: StageOrder, name: str
) -> None:
    """Started anew while they wait."""

    async def live() -> None:
        async with house(layout, model, name) as all_of_it:
            before = await all_of_it.replica("ASLEEP")
            await all_of_it.ask(name)
            after = await all_of_it.replica(*AWAKE)
            assert (after.epoch, len(all_of_it.runtime.launches)) == (before.epoch + 1, 2)

    asyncio.run(live())


def test_a_new_node_agent_leaves_it_asleep(layout: Layout, model: StageOrder) -> None:
    """The engine goes on sleeping, and wakes when it is asked."""

    async def live() -> None:
        async with house(layout, model) as all_of_it:
            before = await all_of_it.replica("ASLEEP")
            await all_of_it.start_node()
            await all_of_it.ask()
            assert (await all_of_it.replica(*AWAKE)).pid == before.pid
            assert len(all_of_it.runtime.launches) == 1

    asyncio.run(live())


def test_a_killed_node_leaves_it_asleep_and_a_request_wakes_it(layout: Layout, model: StageOrder) -> None:
    """SIGKILL while it sleeps: who asks before there is another agent waits, and is answered by the same process."""

    async def live() -> None:
        async with house(layout, model, killed_node=True) as all_of_it:
            before = await all_of_it.replica("ASLEEP")
            await all_of_it.kill_node()
            asked = asyncio.create_task(all_of_it.ask())
            await all_of_it.start_node()
            await asked
            assert (await all_of_it.replica(*AWAKE)).pid == before.pid
            assert all_of_it.runtime.launches == []

    asyncio.run(live())
