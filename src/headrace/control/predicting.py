"""What CHECKING predicts of a replica, and what was measured of it once it is READY."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from headrace.capacity import Load, MemoryNeed, Place, plan
from headrace.hardware import MachineShape, Shape, calibrated, read_calibration, read_catalogue, shape_of
from headrace.resources.deployments import Deployment, Predicted, Replica, Transition
from headrace.resources.errors import HeadraceError
from headrace.resources.models import Dtype
from headrace.resources.nodes import Node
from headrace.weights import ModelFolder

_FILLS_CACHE = frozenset({"vllm"})
"""Runtimes that take the whole cache when they start; of others it grows with what is asked of them."""


class Comparison(msgspec.Struct, frozen=True):
    """A figure that was predicted, beside what was measured.

    Attributes:
        figure: Its name, with its unit.
        error_percent: By how much the prediction was too high; below zero, too low.
    """

    figure: str
    predicted: float
    measured: float
    error_percent: float


def predicted(folder: ModelFolder, need: MemoryNeed, load: Load, node: Node, data_dir: Path | None) -> Predicted:
    """What a replica will take on this node, and how fast it will be where the node's rates are known."""
    memory = Predicted(weights_bytes=need.weights_bytes, cache_bytes=need.kv_bytes, overhead_bytes=need.overhead_bytes)
    try:
        shape = shape_at(node, data_dir)
        place = _place(shape, folder, load)
        found = plan(folder, load, place).prediction
    except (msgspec.ValidationError, HeadraceError):  # a node that says nothing of its machine; other sizes are refused
        return memory
    if found is None:
        return memory
    return msgspec.structs.replace(
        memory,
        load_s=found.load_s,
        time_to_first_token_s=1 / found.decode_tokens_per_s,  # a few words cost what one token does: the weights' way
        tokens_per_s=found.decode_tokens_per_s,
        prompt_tokens_per_s=found.prefill_tokens_per_s,
        rates=shape.rates,
    )


def compare(deployment: Deployment, replica: Replica, timeline: Sequence[Transition]) -> list[Comparison]:
    """Each figure that was both predicted and measured.

    Args:
        deployment: With what was predicted.
        replica: A replica of it that is or was READY.
        timeline: The replica's.
    """
    if deployment.predicted is None or replica.warmup is None:
        return []
    return list(_pairs(deployment, deployment.predicted, replica, timeline))


def shape_at(node: Node, data_dir: Path | None) -> Shape:
    """A node's machine, with the rates that were measured of it.

    Raises:
        msgspec.ValidationError: It says nothing of its machine.
    """
    machine = msgspec.convert(node.hardware, MachineShape)
    shape = shape_of(machine, read_catalogue().accelerators)
    return calibrated(shape, read_calibration(data_dir, machine)) if data_dir else shape


def computes_in(folder: ModelFolder, dtype: Dtype) -> str:
    """The number format that a model computes in: what is asked for, else what most of it is stored in."""
    stored = max(folder.bytes_by_dtype, key=folder.bytes_by_dtype.__getitem__, default="BF16")
    return {"F32": "float32", "F16": "float16"}.get(stored, "bfloat16") if dtype == "auto" else dtype


def _pairs(
    deployment: Deployment, said: Predicted, replica: Replica, timeline: Sequence[Transition]
) -> Iterator[Comparison]:
    cache_bytes = said.cache_bytes if deployment.runtime in _FILLS_CACHE else 0
    at_ready_bytes = replica.warmup.resident_bytes if replica.warmup else 0
    if resident_bytes := at_ready_bytes or replica.resident_bytes:
        total_bytes = said.weights_bytes + said.overhead_bytes + cache_bytes
        yield _pair("resident_bytes", total_bytes, resident_bytes)
    at = {move.state: move.at for move in reversed(timeline)}
    if said.load_s and "STARTING" in at and "WARMING" in at:
        yield _pair("load_s", said.load_s, at["WARMING"] - at["STARTING"])
    warmup = replica.warmup
    if warmup is None or not said.tokens_per_s or not warmup.output_tokens:
        return
    yield _pair("time_to_first_token_s", said.time_to_first_token_s, warmup.time_to_first_token_s)
    if warmup.prompt_tokens and said.prompt_tokens_per_s:
        said_tokens_per_s = warmup.prompt_tokens / said.prompt_s(warmup.prompt_tokens)
        yield _pair("prompt_tokens_per_s", said_tokens_per_s, warmup.prompt_tokens / warmup.prompt_s)
    yield _pair("tokens_per_s", said.tokens_per_s, warmup.decode_tokens_per_s or warmup.tokens_per_s)


def _pair(figure: str, said: float, measured: float) -> Comparison:
    return Comparison(figure, said, measured, 100 * (said / measured - 1) if measured > 0 else 0.0)


def _place(shape: Shape, folder: ModelFolder, load: Load) -> Place:
    return Place(
        name=shape.label,
        devices=max(1, shape.accelerator_count),
        device_bytes=shape.device_bytes,
        bandwidth_bytes_per_s=shape.bandwidth_bytes_per_s,
        flops_per_s=shape.flops_per_s(computes_in(folder, load.dtype)),
        measured=shape.measured,
    )
