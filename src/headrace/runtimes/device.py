"""What a runtime computes on: the GPUs of its machine, or the CPU where there are none."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from headrace.hardware import find_gpus

Device = Literal["cpu", "cuda"]


class EitherDevice:
    """A runtime that computes on a GPU where the machine has one.

    Args:
        device: What it computes on; None looks whether this machine has GPUs, when it is first asked.
    """

    def __init__(self, device: Device | None = None) -> None:
        self._given = device

    @cached_property
    def device(self) -> Device:
        """What it computes on."""
        return self._given or ("cuda" if find_gpus() else "cpu")
