"""What this machine has."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from headrace.hardware import find_gpus, look
from headrace.hardware.cgroups import Limits, read_limits
from headrace.hardware.gpus import parse_gpus
from headrace.hardware.machine import read_cpu

GIB = 1024**3


def write(root: Path, files: dict[str, str]) -> None:
    """Make files with these contents."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    """Every number is possible, and agrees with what the system says by another way."""
    shape = look(tmp_path / "not" / "yet")
    assert 0 < shape.memory_available_bytes <= shape.memory_total_bytes
    assert shape.memory_total_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < shape.cores <= len(os.sched_getaffinity(0))
    assert 0 < shape.disk_free_bytes <= shape.disk_total_bytes
    assert (shape.open_files_soft, shape.open_files_hard) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert shape.cpu_model


def test_cgroup_v2_takes_the_tightest_limit_on_the_way_up(tmp_path: Path) -> None:
    """A slice's memory limit holds below it; cache that would make way counts as free; quotas become cores."""
    write(
        tmp_path,
        {
            "self": "0::/slice/service\n",
            "fs/slice/memory.max": f"{4 * GIB}\n",
            "fs/slice/memory.current": f"{3 * GIB}\n",
            "fs/slice/memory.stat": f"anon 1\ninactive_file {1 * GIB}\n",
            "fs/slice/service/memory.max": "max\n",
            "fs/slice/service/memory.current": f"{2 * GIB}\n",
            "fs/slice/service/cpu.max": "150000 100000\n",
            "fs/slice/cpu.max": "max 100000\n",
        },
    )
    assert read_limits(tmp_path / "self", tmp_path / "fs") == Limits(4 * GIB, 2 * GIB, 1.5)


def test_cgroup_v1_is_read_too(tmp_path: Path) -> None:
    """Version 1 has a mount for each controller, and a huge number for no limit."""
    write(
        tmp_path,
        {
            "self": "4:memory:/box\n3:cpu,cpuacct:/box\n1:name=systemd:/x\n0::/\n",
            "fs/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "fs/memory/box/memory.limit_in_bytes": f"{2 * GIB}\n",
            "fs/memory/box/memory.usage_in_bytes": f"{GIB}\n",
            "fs/memory/box/memory.stat": "total_inactive_file 0\n",
            "fs/cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n",
            "fs/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        },
    )
    assert read_limits(tmp_path / "self", tmp_path / "fs") == Limits(2 * GIB, GIB, 0.5)


def test_inside_a_container_the_mount_itself_is_the_group(tmp_path: Path) -> None:
    """The path that the kernel names does not exist there; the limit is at the mount."""
    write(tmp_path, {"self": "0::/../../docker/abc\n", "fs/memory.max": f"{GIB}\n", "fs/memory.current": "0\n"})
    assert read_limits(tmp_path / "self", tmp_path / "fs").memory_bytes == GIB


def test_no_control_groups_mean_no_limits(tmp_path: Path) -> None:
    """A machine without them is as large as it is."""
    assert read_limits(tmp_path / "self", tmp_path / "fs") == Limits()


@pytest.mark.parametrize(
    ("content", "model", "flags"),
    [
        (
            "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512_bf16 amx_tile\n",
            "AMD EPYC",
            ("amx_tile", "avx2", "avx512_bf16"),
        ),
        ("processor : 0\nFeatures : fp asimd bf16 i8mm\n", None, ("asimd", "bf16", "i8mm")),
    ],
)
def test_a_processor_is_read(tmp_path: Path, content: str, model: str | None, flags: tuple[str, ...]) -> None:
    """The name and the flags that decide speed, on x86-64 and on arm64."""
    (tmp_path / "cpuinfo").write_text(content)
    found_model, found_flags = read_cpu(tmp_path / "cpuinfo")
    assert found_flags == flags
    assert found_model == model if model else found_model


def fake_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a program of that name first on the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_gpus_are_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line a GPU, with sizes in MiB."""
    fake_nvidia_smi(tmp_path, monkeypatch, 'echo "0, GPU-1a2b, NVIDIA L4, 23034, 22564, 550.54.15, 8.9"')
    (gpu,) = find_gpus()
    assert (gpu.index, gpu.name, gpu.compute_capability) == (0, "NVIDIA L4", "8.9")
    assert gpu.memory_total_bytes == 23034 * 1024**2
    assert gpu.memory_free_bytes == 22564 * 1024**2


def test_a_broken_driver_counts_as_no_gpu_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine with a broken driver still serves from its processor, and says why."""
    fake_nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA-SMI has failed'; exit 9")
    assert find_gpus() == ()
    assert "nvidia-smi" in caplog.text


def test_no_driver_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvidia-smi there is nothing to ask."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == ()
    assert parse_gpus("\n") == ()
