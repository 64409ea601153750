"""The gateway asks the kernel for short turns, and for nothing else."""

from __future__ import annotations

import ctypes
import os
import platform
import threading

import pytest

from headrace.server.short_turns import _ATTR, SLICE_NS, take_short_turns

_GETATTR = {"x86_64": 315, "aarch64": 275}
TAKES_SLICES = tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 12)


def in_a_thread_of_its_own() -> tuple[bool, int, int, int]:
    """What it said; policy, nice value and slice (ns; 0: the kernel's) of the thread afterwards."""
    found: list[tuple[bool, int, int, int]] = []

    def ask() -> None:
        took = take_short_turns()
        told = ctypes.create_string_buffer(_ATTR.size)
        assert ctypes.CDLL(None).syscall(_GETATTR[platform.machine()], 0, told, _ATTR.size, 0) == 0
        _, policy, _, nice, _, runtime_ns, *_ = _ATTR.unpack(told.raw)
        found.append((took, policy, nice, runtime_ns))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


def test_it_keeps_its_priority_and_gets_shorter_turns() -> None:
    """The share of the processor is what it was; a kernel that knows slices has the one that was asked for."""
    took, policy, nice, slice_ns = in_a_thread_of_its_own()
    assert (took, policy, nice) == (True, os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
    if TAKES_SLICES:
        assert slice_ns == SLICE_NS


def test_a_processor_whose_numbers_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of a kernel by a number that may be another call's."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not take_short_turns()
