"""What a replica's order becomes: its engine's launch and process; and why that ended, if nobody told it to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace.compute.backend import EngineExit, EngineProcess, EngineSpec
from headrace.hardware import Gpu
from headrace.node.sharing import Share
from headrace.node.stager import Staged
from headrace.resources.assignments import ReplicaOrder
from headrace.resources.errors import EngineDied, Failure
from headrace.runtimes import EngineCommand, EngineEnd, Launch, Runtime

_CLASSIFY_LINES = 200


def launch_of(
    order: ReplicaOrder,
    staged: Staged,
    share: Share,
    *,
    socket: Path,
    kv_cache_bytes: int,
    chat_template: Path | None,
    gpu_share: float,
) -> Launch:
    """What the runtime is told.

    Args:
        order: What was ordered.
        staged: Where the files are.
        share: What of the machine it has.
        socket: Where it is to listen.
        kv_cache_bytes: What its cache may take.
        chat_template: A template that was given with the order, or that the engine would not find in the folder.
        gpu_share: What it has of the memory of each of its GPUs.
    """
    return Launch(
        model_dir=staged.model_dir,
        served_name=order.served_name,
        nonce=order.nonce,
        socket=socket,
        max_model_len=order.max_model_len,
        dtype=order.dtype,
        threads=share.threads,
        cores=share.cores,
        kv_cache_bytes=kv_cache_bytes,
        tensor_parallel=order.tensor_parallel,
        prefix_caching=order.prefix_caching,
        chat_template=chat_template,
        tool_parser=order.tool_parser,
        may_sleep=order.may_sleep,
        allow_custom_code=order.allow_custom_code,
        gpus=order.gpus,
        gpu_share=gpu_share,
    )


def gpu_share(order: ReplicaOrder, gpus: Sequence[Gpu]) -> float:
    """What is set aside for a replica of the memory of each of its GPUs, which are of one size; 0 where it has none.

    Args:
        order: What was ordered.
        gpus: Those of this machine.

    Raises:
        EngineDied: One of its is not there any more.
    """
    there = {gpu.uuid: gpu.memory_total_bytes for gpu in gpus}
    if gone := [gpu for gpu in order.gpus if gpu not in there]:
        raise EngineDied(
            f"The replica was to compute on {' and '.join(gone)}, which this machine does not have any more.",
            evidence=f"NVIDIA's driver shows {', '.join(there) or 'no GPU'}.",
            fix="`nvidia-smi` shows what became of it. Its successor goes to those that are there.",
        )
    return min((order.gpu_bytes / there[gpu] for gpu in order.gpus), default=0.0)


def engine_spec(order: ReplicaOrder, command: EngineCommand, share: Share, *, unclaimed_timeout_s: float) -> EngineSpec:
    """What the compute backend is told."""
    return EngineSpec(
        id=order.id,
        epoch=order.epoch,
        nonce=order.nonce,
        argv=command.argv,
        env=command.env,
        memory_limit_bytes=order.memory_limit_bytes,
        cores=share.cores,
        stop_grace_s=order.drain_timeout_s,
        unclaimed_timeout_s=unclaimed_timeout_s,
    )


def why_ended(
    runtime: Runtime,
    order: ReplicaOrder,
    process: EngineProcess,
    end: EngineExit,
    *,
    unclaimed_timeout_s: float,
    machine_memory_bytes: int,
) -> Failure:
    """What is told of an engine that ended by itself."""
    if end.why_stopped == "unclaimed":
        evidence = f"It ran for {unclaimed_timeout_s:g} s without a node."
        return EngineDied("The engine ended because no node claimed it.", evidence=evidence).failure
    if end.why_stopped:
        return EngineDied("The engine was stopped from outside.", evidence="Its shim was told to end.").failure
    return runtime.classify(
        EngineEnd(
            exit_status=end.exit_status,
            log_tail=process.log_tail(_CLASSIFY_LINES),
            peak_resident_bytes=end.peak_resident_bytes,
            memory_limit_bytes=order.memory_limit_bytes,
            machine_memory_bytes=machine_memory_bytes,
            oom_kills=end.oom_kills,
        )
    )
