"""What control groups (containers, systemd slices) leave of a machine: Linux's versions 1 and 2.

A group's limit holds for all groups below it, so the tightest one on the way up to the root counts. Inside a container
the path in ``/proc/self/cgroup`` often does not exist under the mount, which then shows the container's own group at
its top; the walk ends there either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

_UNLIMITED_V1_BYTES = 2**60
"""Version 1 writes "no limit" as a number close to 2**63."""


class Limits(msgspec.Struct, frozen=True):
    """The tightest limits; None where there is none.

    Attributes:
        memory_bytes: Memory that the group may hold.
        memory_left_bytes: How much more it can take; page cache that would make way counts as free.
        cores: Processors' worth of time.
    """

    memory_bytes: int | None = None
    memory_left_bytes: int | None = None
    cores: float | None = None


def read_limits(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Limits:
    """The limits that hold for this process.

    Args:
        membership: The file that names its groups.
        mount: Where the kernel shows them.
    """
    memory: list[tuple[int, int]] = []
    cores: list[float] = []
    for controllers, path in _groups(membership):
        if not controllers:
            for folder in _upwards(mount, path):
                memory.extend(_memory(folder, "memory.max", "memory.current", "inactive_file"))
                cores.extend(_quota_v2(folder))
        if "memory" in controllers:
            for folder in _upwards(mount / "memory", path):
                usage = "memory.usage_in_bytes"
                memory.extend(_memory(folder, "memory.limit_in_bytes", usage, "total_inactive_file"))
        if "cpu" in controllers:
            # the two controllers share one mount, which has either name
            for folder in (*_upwards(mount / "cpu", path), *_upwards(mount / "cpu,cpuacct", path)):
                cores.extend(_quota_v1(folder))
    return Limits(
        memory_bytes=min((limit for limit, _ in memory), default=None),
        memory_left_bytes=min((left for _, left in memory), default=None),
        cores=min(cores, default=None),
    )


def _groups(membership: Path) -> Iterator[tuple[set[str], str]]:
    for line in (_read(membership) or "").splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield set(filter(None, controllers.split(","))), path


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    folder = mount / path.strip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _memory(folder: Path, limit_file: str, usage_file: str, cache_key: str) -> Iterator[tuple[int, int]]:
    limit, usage = _number(folder / limit_file), _number(folder / usage_file)
    if limit is None or limit >= _UNLIMITED_V1_BYTES:
        return
    statistics = dict(line.split(" ", 1) for line in (_read(folder / "memory.stat") or "").splitlines() if " " in line)
    yield limit, max(0, limit - max(0, (usage or 0) - int(statistics.get(cache_key, 0))))


def _quota_v2(folder: Path) -> Iterator[float]:
    quota, _, period = (_read(folder / "cpu.max") or "").strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        yield int(quota) / int(period)


def _quota_v1(folder: Path) -> Iterator[float]:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota and quota > 0 and period:
        yield quota / period


def _number(file: Path) -> int | None:
    try:
        return int(_read(file) or "")
    except ValueError:  # "max", or no such file
        return None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return None
