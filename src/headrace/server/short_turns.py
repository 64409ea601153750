"""Short turns on a processor that engines keep busy.

An engine on a CPU computes on every core, the gateway's too. The kernel gives whoever computes some 3 ms at a time, for
which a token that has come waits. A thread that says that it wants less at a time is let in sooner, for the same share
(EEVDF; Linux 6.12 and newer take the slice from ``sched_setattr``, older ones ignore it). No right is needed for that.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SLICE_NS = 100_000
"""The least that the kernel takes (0.1 ms): three tokens on their way through."""

_ATTR = struct.Struct("=IIQiIQQQII")
"""``struct sched_attr``: size, policy, flags, nice, priority, runtime, deadline, period, and two clamps (sched(7))."""

_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Its number, for the C library of most systems has no function for it."""


def take_short_turns() -> bool:
    """Ask for short turns for the calling thread.

    Returns:
        Whether the kernel took it, as an old one does too, and ignores it. Where it did not, everything is as before.
    """
    number = _SETATTR.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, 0, attributes, 0) == 0)
