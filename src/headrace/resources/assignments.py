"""What control asks of a node, and what a node reports back: the typed messages of that process boundary.

A node is the only caller: it long-polls its `NodeOrders` and pushes a `NodeReport` on every change and as a heartbeat.
Orders are levels, not edges: the full list of what should be, so that a message lost or repeated does no harm.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.resources.deployments import Warmup
from headrace.resources.errors import Failure
from headrace.resources.models import Dtype
from headrace.resources.profiles import Grid, Point
from headrace.resources.states import ReplicaState


class StageOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Bring these artifacts and this runtime to the node, in the form that the runtime loads.

    Attributes:
        dtype: Number format that the weights are served in; a conversion may depend on it.
        project: Whose credentials they are fetched with.
    """

    artifact_uri: str
    fingerprint: str
    runtime: str
    dtype: Dtype = "auto"
    project: str = ""


class ProfileOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Measure what a replica carries, once it has warmed up and before it takes requests.

    Attributes:
        grid: With what.
        budget_s: How long that should take; three times as long at most, of a replica that is slow.
        before_at: When it has to be over whatever it came to, in Unix seconds; 0: it may take all of its budget.
    """

    grid: Grid
    budget_s: float
    before_at: float = 0.0


class ReplicaOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Run this replica, put it to sleep, or stop it. A replica that is in no order at all is stopped too.

    Attributes:
        wanted: One whose engine cannot ``sleep`` is stopped.
        may_sleep: Whether ``sleep`` may ever be wanted of it.
        measured: Whether it is to be told what the replica has to do (`ReplicaLoad`).
        profile: What is to be measured of it before it is READY; None: nothing.
        nonce: The key that the engine is to demand of its callers.
        served_name: The model name that the engine answers to.
        project: Whose credentials the weights are fetched with.
        tensor_parallel: As in the version's `ServingSpec`; so the four that follow.
        gpus: The GPUs that are its; empty: whichever its engine finds, or none.
        gpu_bytes: What is set aside for it of the memory of each.
        memory_limit_bytes: Hard limit on the engine's address space, or None.
        startup_timeout_s: How long it may take from start to healthy.
        drain_timeout_s: How long running requests may go on after a stop.
    """

    id: str
    deployment_id: str
    epoch: int
    nonce: str
    wanted: Literal["run", "sleep", "stop"]
    artifact_uri: str
    fingerprint: str
    runtime: str
    served_name: str
    max_model_len: int
    project: str = ""
    dtype: Dtype = "auto"
    tensor_parallel: int = 1
    prefix_caching: bool | None = None
    chat_template: str | None = None
    tool_parser: str | None = None
    may_sleep: bool = False
    measured: bool = False
    profile: ProfileOrder | None = None
    allow_custom_code: bool = False
    gpus: tuple[str, ...] = ()
    gpu_bytes: int = 0
    memory_limit_bytes: int | None = None
    startup_timeout_s: float = 600.0
    drain_timeout_s: float = 30.0


class NodeOrders(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one node should do now. `generation` grows with every change.

    Attributes:
        kept: Fingerprints of the models of living deployments: not to be removed to make room, also between replicas.
    """

    generation: int
    kept: tuple[str, ...] = ()
    stages: tuple[StageOrder, ...] = ()
    replicas: tuple[ReplicaOrder, ...] = ()


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far a `StageOrder` is.

    Attributes:
        detail: A sentence for the timeline: what an installation is doing; once done, what was converted.
        found: The same for a deployment that comes when it is done: that nothing had to be converted.
        bytes_per_s: How fast they came in the last seconds, while ``copying``.
        notes: Sentences for the timeline, each to be told once: what was removed to make room, what could not be held
            against a checksum.
        done_at: When it was done; 0 until then.
    """

    fingerprint: str
    runtime: str
    dtype: Dtype = "auto"
    phase: Literal["installing", "copying", "converting", "done", "failed"]
    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_s: float = 0.0
    detail: str = ""
    found: str = ""
    notes: tuple[str, ...] = ()
    done_at: float = 0.0
    failure: Failure | None = None


class ReplicaLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica has to do. None: that could not be read.

    Attributes:
        at: When it was measured.
        over_s: Over how long until then.
        cpu_percent: Processor time of its engine, of the cores that it has.
        accelerator_percent: Share of the time in which the GPUs that it runs on computed something (NVML), on average.
        kv_cache_percent: Of its KV cache, what is in use.
        waiting: Requests in the engine's own line.
    """

    at: float
    over_s: float
    cpu_percent: float | None = None
    accelerator_percent: float | None = None
    kv_cache_percent: float | None = None
    waiting: float | None = None


class ProfileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a `ProfileOrder` came to: points, or why there are none."""

    points: tuple[Point, ...] = ()
    failure: Failure | None = None


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the node knows of one replica; `GONE` once nothing of it runs any more.

    Attributes:
        detail: A sentence for the timeline, of how it came to its state, or while WARMING of what is being done.
        load: What it has to do, where that was asked for.
        profile: What was measured of it before it was READY, where that was asked for.
    """

    id: str
    epoch: int
    state: ReplicaState
    since: float
    detail: str = ""
    address: str = ""
    pid: int = 0
    resident_bytes: int = 0
    warmup: Warmup | None = None
    failure: Failure | None = None
    exit_status: int | None = None
    log_tail: tuple[str, ...] = ()
    load: ReplicaLoad | None = None
    profile: ProfileReport | None = None


class RuntimeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime's environment as found on the node.

    Attributes:
        versions: Installed versions of its pinned packages.
        engines_stamp: Version stamp of the engines inside, empty when there are none.
        mismatch: A sentence that says what differs from what this version of Headrace pins; empty when nothing does.
    """

    name: str
    installed: bool
    path: str = ""
    size_bytes: int = 0
    versions: dict[str, str] = {}
    engines_stamp: str = ""
    mismatch: str = ""


class StagedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a node's cache.

    Attributes:
        fingerprint: Its name there.
        size_bytes: Of all its folders; of what is not whole yet, what it takes on the disk or is going to.
        used_at: When somebody began or ended to use it last, in Unix seconds.
        in_use: Somebody uses it now: it cannot be evicted.
    """

    fingerprint: str
    size_bytes: int
    used_at: float
    in_use: bool


class ModelCacheReport(msgspec.Struct, frozen=True, kw_only=True):
    """The staged models of a node, when it last looked; at most half a minute ago.

    Attributes:
        limit_bytes: What they may take together; None: any amount.
        models: The longest unused first.
    """

    limit_bytes: int | None = None
    models: tuple[StagedModel, ...] = ()


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one machine.

    Attributes:
        boot_id: Fresh at each start of the node agent.
        orders_generation: The newest orders that this report takes account of, 0 before any: whatever they name and
            the report does not, the node does not have.
        hardware: `headrace.hardware`'s description of the machine, as JSON.
        memory_bytes: Memory that replicas may share out.
        cores: Cores that replicas may share out.
    """

    node_id: str
    boot_id: str
    orders_generation: int
    at: float
    memory_bytes: int
    cores: int
    hardware: dict[str, Any] = {}
    stages: tuple[StageReport, ...] = ()
    replicas: tuple[ReplicaReport, ...] = ()
    runtimes: tuple[RuntimeReport, ...] = ()
    model_cache: ModelCacheReport = ModelCacheReport()
