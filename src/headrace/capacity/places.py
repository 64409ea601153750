"""A machine shape as a place that a model could lie in."""

from __future__ import annotations

from headrace.capacity.roofline import Place
from headrace.hardware.shapes import Shape

DEVICE_SHARE = 0.9
"""What of a device's memory is planned with: a little less than vLLM's default ``gpu_memory_utilization``, 0.92
(vllm/config/cache.py:102). Of a CPU's memory it is all, as in CHECKING."""


def place_of(shape: Shape, number_format: str) -> Place:
    """The place.

    Args:
        shape: The machine.
        number_format: What the model computes in.
    """
    return Place(
        name=shape.label,
        devices=max(1, shape.accelerator_count),
        device_bytes=shape.device_bytes,
        usable_share=DEVICE_SHARE if shape.accelerator else 1.0,
        bandwidth_bytes_per_s=shape.bandwidth_bytes_per_s,
        flops_per_s=shape.flops_per_s(number_format),
        measured=shape.measured,
    )
