"""What a node gives its engines to compute with: cores of their own, a cache as large as planned, and their task."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_standins import ControlStandIn, NothingToInstall, ScriptedRuntime, listening
from safetensors.numpy import save_file
from test_node_agent import TOKEN, layout, model, replica, working

from headrace.capacity import PLANNED_SEQUENCES
from headrace.hardware import Gpu, find_cores
from headrace.hardware.cores import read_list
from headrace.node import Agent
from headrace.node.launching import gpu_share
from headrace.node.probe import MEASURED_TOKENS
from headrace.node.sharing import CoreSharing
from headrace.resources.assignments import ReplicaReport, StageOrder
from headrace.resources.layout import Layout
from headrace.storage import fingerprint, open_artifacts

__all__ = ["layout", "model"]  # fixtures

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "scripted",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "vocab_size": 10,
}


def agent_with(layout: Layout, runtime: ScriptedRuntime) -> Agent:
    """An agent whose engines' launches the test sees."""
    address = f"unix:{layout.control_socket}"
    return Agent(layout, address, TOKEN, runtimes={"scripted": runtime}, installer=NothingToInstall())


async def ready(
    layout: Layout, model: StageOrder, runtime: ScriptedRuntime, name: str, **changes: object
) -> ReplicaReport:
    """Run one replica until it is READY, or has failed."""
    control = ControlStandIn()
    async with listening(control, layout), working(agent_with(layout, runtime)):
        await control.order(replicas=(replica(model, name, **changes),))
        return await control.replica("7", "READY", "FAILED")


def test_a_replica_whose_gpu_is_gone_does_not_start(layout: Layout, model: StageOrder) -> None:
    """It fails with the GPU's name, instead of computing where it was not planned."""
    report = asyncio.run(ready(layout, model, ScriptedRuntime(), "gone-gpu", gpus=("GPU-1a2b",), gpu_bytes=7))
    assert report.state == "FAILED"
    assert report.failure is not None
    assert (report.failure.code, "GPU-1a2b" in report.failure.message) == ("ENGINE_DIED", True)
    assert report.pid == 0


def test_what_was_set_aside_is_a_part_of_each_of_its_gpus(model: StageOrder) -> None:
    """vLLM is told one number for all, and never asks for more of one than was set aside there."""
    gpus = [Gpu(index, f"GPU-{index}", "NVIDIA", size, size, "550", "8.9") for index, size in enumerate((100, 80, 10))]
    assert gpu_share(replica(model, "share", gpus=("GPU-0", "GPU-1"), gpu_bytes=40), gpus) == 0.4
    assert gpu_share(replica(model, "share"), gpus) == 0.0


def threads_at(pid: int) -> set[frozenset[int]]:
    """The sets of cores on which the threads of a process may run."""
    return {frozenset(os.sched_getaffinity(int(name))) for name in os.listdir(f"/proc/{pid}/task")}


def test_replicas_get_cores_of_their_own_and_give_them_back(layout: Layout, model: StageOrder) -> None:
    """Alone: all; together: halves, for every thread of what ran already too; alone again: all."""
    machine = frozenset(os.sched_getaffinity(0))

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent_with(layout, ScriptedRuntime())):
            first, second = replica(model, "pinned-a"), replica(model, "pinned-b", id="8")
            await control.order(replicas=(first,))
            one = await control.replica("7", "READY")
            assert threads_at(one.pid) == {machine}
            await control.order(replicas=(first, second))
            two = await control.replica("8", "READY")
            [at_one], [at_two] = threads_at(one.pid), threads_at(two.pid)
            assert at_one | at_two == machine
            assert abs(len(at_one) - len(at_two)) <= 1
            assert at_one.isdisjoint(at_two) or len(machine) == 1
            await control.order(replicas=(second,))
            await control.until(lambda report: [one.id for one in report.replicas] == ["8"])
            assert threads_at(two.pid) == {machine}

    asyncio.run(live())


def test_an_adopted_replica_keeps_its_cores(layout: Layout, model: StageOrder) -> None:
    """A node that starts anew moves nobody."""

    async def live() -> None:
        control = ControlStandIn()
        orders = (replica(model, "pinned-a"), replica(model, "pinned-b", id="8"))
        async with listening(control, layout):
            first = agent_with(layout, ScriptedRuntime())
            running = asyncio.create_task(first.run())
            await control.order(replicas=orders)
            pids = [(await control.replica(name, "READY")).pid for name in ("7", "8")]
            before = [threads_at(pid) for pid in pids]
            await first.stop(keep_replicas=True)
            await running
            async with working(agent_with(layout, ScriptedRuntime())):
                seen = len(control.reports)
                await control.until(lambda report: len(control.reports) > seen and len(report.replicas) == 2)
                assert [threads_at(pid) for pid in pids] == before

    asyncio.run(live())


def test_threads_are_those_of_the_share_to_come(layout: Layout, model: StageOrder) -> None:
    """Of several replicas ordered at once, the first is not given threads for cores that it has to give up."""
    runtime = ScriptedRuntime()
    cores = len(os.sched_getaffinity(0))

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent_with(layout, runtime)):
            await control.order(replicas=(replica(model), replica(model, id="8")))
            await control.replica("7", "READY")
            await control.replica("8", "READY")

    asyncio.run(live())
    assert [launch.threads for launch in runtime.launches] == [max(1, cores // 2)] * 2


@given(st.integers(1, 64), st.floats(1, 64), st.integers(1, 80))
def test_nothing_is_pinned_under_a_quota(cores: int, quota: float, replicas: int) -> None:
    """A container's time is not bound to processors: its engines share the time, each with at least one thread."""
    sharing = CoreSharing([tuple(range(cores))], quota)
    names = [str(number) for number in range(replicas)]
    moved = sharing.follow(names)
    shares = [sharing.share(name, replicas) for name in names]
    assert all(share.threads >= 1 for share in shares)
    assert sum(share.threads for share in shares) <= max(replicas, quota)
    if int(quota) < cores:
        assert not moved
        assert not any(share.cores for share in shares)
    else:
        assert set(moved) == set(names)
    assert sharing.follow(names) == {}


def test_the_cache_is_as_large_as_the_plan(layout: Layout, tmp_path: Path) -> None:
    """Keys and values of eight sequences of full length, from the model's own folder: what control reserved."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({"w": np.zeros((10, 8), np.float16)}, folder / "model.safetensors", metadata={"format": "pt"})
    uri = f"file://{folder}"
    order = StageOrder(artifact_uri=uri, fingerprint=fingerprint(open_artifacts(uri)), runtime="scripted")
    runtime = ScriptedRuntime()
    asyncio.run(ready(layout, order, runtime, "chat"))
    layers, kv_heads, head_dim, two_bytes = 2, 2, 2, 2
    per_token = 2 * layers * kv_heads * head_dim * two_bytes
    assert runtime.launches[0].kv_cache_bytes == per_token * 2048 * PLANNED_SEQUENCES


def test_a_second_longer_generation_is_measured(layout: Layout, model: StageOrder) -> None:
    """How fast a prompt was read and how fast was written after it; and what memory there was when it was READY."""
    warmup = asyncio.run(ready(layout, model, ScriptedRuntime(), "chat")).warmup
    assert warmup is not None
    assert MEASURED_TOKENS[0] <= warmup.prompt_tokens <= MEASURED_TOKENS[1]
    assert warmup.prompt_s > 0
    assert warmup.decode_tokens_per_s > 0
    assert warmup.resident_bytes > 0


@pytest.mark.parametrize(("name", "max_model_len"), [("short-of-breath", 2048), ("chat", 20)])
def test_without_a_second_generation_a_replica_is_ready_all_the_same(
    layout: Layout, model: StageOrder, name: str, max_model_len: int
) -> None:
    """An engine that refuses the longer prompt, or has no room for it, has shown what it is for by the first one."""
    report = asyncio.run(ready(layout, model, ScriptedRuntime(), name, max_model_len=max_model_len))
    assert report.state == "READY"
    assert report.warmup is not None
    assert report.warmup.output_tokens > 0
    assert (report.warmup.prompt_tokens, report.warmup.decode_tokens_per_s) == (0, 0.0)


def test_an_embedding_engine_is_warmed_by_an_embedding(layout: Layout, model: StageOrder) -> None:
    """Its card says what it is for; what is measured is the vector, and no token is claimed."""
    report = asyncio.run(ready(layout, model, ScriptedRuntime(), "embedder"))
    assert report.state == "READY"
    assert report.warmup is not None
    assert report.warmup.output_tokens == 0
    assert report.warmup.time_to_first_token_s > 0
    assert report.warmup.tokens_per_s == pytest.approx(3 / report.warmup.time_to_first_token_s)


def test_an_embedding_engine_without_a_vector_is_not_ready(layout: Layout, model: StageOrder) -> None:
    """Healthy is not enough."""
    report = asyncio.run(ready(layout, model, ScriptedRuntime(), "embeds-nothing"))
    assert report.failure is not None
    assert (report.failure.code, report.failure.evidence) == ("ENGINE_WARMUP_FAILED", "It answered without a vector.")


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A kernel's description of a machine with the cores that this process may use, and more, in two nodes."""
    ours = sorted(os.sched_getaffinity(0))
    for node, cores in enumerate((f"{ours[0]},9990-9999", ",".join(map(str, ours[1:])))):
        (tmp_path / f"node/node{node}").mkdir(parents=True)
        (tmp_path / f"node/node{node}/cpulist").write_text(cores + "\n")
    return tmp_path


def test_cores_are_found_by_memory_node(system: Path, tmp_path: Path) -> None:
    """Only those that this process may use; all in one node where the kernel does not say."""
    ours = sorted(os.sched_getaffinity(0))
    assert find_cores(system) == tuple(node for node in ((ours[0],), tuple(ours[1:])) if node)
    assert find_cores(tmp_path / "nothing") == (tuple(ours),)
    assert find_cores() != ()
    assert read_list(system / "node/node0/cpulist") == {ours[0], *range(9990, 10000)}
