"""What this machine has."""

from __future__ import annotations

import functools
import os
import resource
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.hardware import Gpu, find_gpus, look
from headrace.hardware.cgroups import Limits, read_limits
from headrace.hardware.gpus import visible
from headrace.hardware.machine import read_cpu
from headrace.hardware.numa import NumaNode, find_numa_nodes, parse_cpu_list

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


class FakeDriver:
    """NVML's functions for one GPU, with the driver's errors; here is no GPU to ask.

    Args:
        answers: What each function returns, or the error that it raises.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, object]) -> None:
        self.open = 0
        monkeypatch.setattr(pynvml, "nvmlInit", self.init)
        monkeypatch.setattr(pynvml, "nvmlShutdown", self.shutdown)
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, functools.partial(self.answer, answer))

    def init(self) -> None:
        """Open the library."""
        self.open += 1

    def shutdown(self) -> None:
        """Close it."""
        self.open -= 1

    @staticmethod
    def answer(answer: object, *_: object) -> object:
        """As the driver."""
        if isinstance(answer, Exception):
            raise answer
        return answer


L4 = {
    "nvmlSystemGetDriverVersion": "550.54.15",
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": "handle",
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=23034 * 1024**2, free=22564 * 1024**2),
    "nvmlDeviceGetCudaComputeCapability": (8, 9),
    "nvmlDeviceGetMaxClockInfo": 6251,
    "nvmlDeviceGetMemoryBusWidth": 192,
    "nvmlDeviceGetMigMode": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),
    "nvmlDeviceGetUUID": "GPU-1a2b",
    "nvmlDeviceGetName": "NVIDIA L4",
}


def test_gpus_are_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, memory, compute capability and the bandwidth of its memory; the library is closed again."""
    driver = FakeDriver(monkeypatch, L4)
    (gpu,) = find_gpus()
    assert (gpu.index, gpu.name, gpu.compute_capability, gpu.divided) == (0, "NVIDIA L4", "8.9", False)
    assert gpu.memory_total_bytes == 23034 * 1024**2
    assert gpu.memory_free_bytes == 22564 * 1024**2
    assert gpu.bandwidth_bytes_per_s == pytest.approx(300e9, rel=0.01)
    assert driver.open == 0


def test_what_a_gpu_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that tells neither its clocks nor its bus is used, and its bandwidth is not known; MIG is noticed."""
    unknown = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    FakeDriver(monkeypatch, L4 | {"nvmlDeviceGetMaxClockInfo": unknown, "nvmlDeviceGetMigMode": [1, 1]})
    (gpu,) = find_gpus()
    assert gpu.bandwidth_bytes_per_s == 0
    assert gpu.divided


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,0", [2, 0]),
        ("0, 1", [0, 1]),
        ("1,7,0", [1]),
        ("1,1", []),
        ("GPU-b", [2]),
        ("GPU-a", []),
        ("GPU-a1,2", [0]),
        ("0,GPU-b", [0]),
        ("GPU-", []),
        ("MIG-1c", [1]),
    ],
)
def test_a_node_has_the_gpus_that_cuda_shows_it(listed: str | None, shown: list[int]) -> None:
    """By number or by the beginning of an identity that only one has, up to the first that there is not; for instances,
    those that are divided."""
    gpus = [
        Gpu(index, uuid, "NVIDIA A100", 80 * GIB, 80 * GIB, "550", "8.0", divided=index == 1)
        for index, uuid in enumerate(UUIDS)
    ]
    assert [gpu.index for gpu in visible(gpus, listed)] == shown


UUIDS = ("GPU-a1", "GPU-a2", "GPU-b")


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount", "nvmlDeviceGetMemoryInfo"])
def test_a_broken_driver_counts_as_no_gpu_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    """A machine with a broken driver still serves from its processor, and says why."""
    driver = FakeDriver(monkeypatch, L4 | {function: pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)})
    assert find_gpus() == ()
    assert "GPU is lost" in caplog.text
    assert driver.open == 0


def test_a_driver_that_is_not_loaded_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library without its kernel module is a fault that an operator wants to know of."""
    not_loaded = pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    monkeypatch.setattr(pynvml, "nvmlInit", functools.partial(FakeDriver.answer, not_loaded))
    assert find_gpus() == ()
    assert "Driver Not Loaded" in caplog.text


def test_no_driver_means_no_gpu_and_no_word(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Most machines have none: that is not worth a line."""
    missing = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monkeypatch.setattr(pynvml, "nvmlInit", functools.partial(FakeDriver.answer, missing))
    assert find_gpus() == ()
    assert not caplog.text


def test_memory_nodes_are_read(tmp_path: Path) -> None:
    """Processors and memory of each node that has memory, in the order of their numbers."""
    write(
        tmp_path,
        {
            "node10/cpulist": "8\n",
            "node10/meminfo": "Node 10 MemTotal:  1024 kB\n",
            "node0/cpulist": "0-3,6\n",
            "node0/meminfo": "Node 0 MemTotal:       2048 kB\nNode 0 MemFree: 1 kB\n",
            "node1/cpulist": "\n",
            "node1/meminfo": "Node 1 MemTotal:       0 kB\n",
            "nodelist/cpulist": "0\n",
        },
    )
    assert find_numa_nodes(tmp_path) == (NumaNode(0, (0, 1, 2, 3, 6), 2 * 1024**2), NumaNode(10, (8,), 1024**2))
    assert find_numa_nodes(tmp_path / "absent") == ()


@given(st.sets(st.integers(0, 300), max_size=40))
def test_a_list_of_processors_is_read_as_linux_writes_it(cpus: set[int]) -> None:
    """Runs and single numbers, in any mixture."""
    runs = [list(run) for _, run in groupby(enumerate(sorted(cpus)), lambda pair: pair[1] - pair[0])]
    texts = [f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs]
    assert parse_cpu_list(",".join(texts) + "\n") == tuple(sorted(cpus))
