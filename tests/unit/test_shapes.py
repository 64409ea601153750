"""The catalogue of machine shapes, an operator's own file, and the rule of all three or none."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import pytest

from headrace.hardware import (
    Catalogue,
    Gpu,
    MachineShape,
    cheapest_first,
    find_shape,
    next_up,
    read_catalogue,
    shape_by_name,
    shape_of,
)
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField, MachineSpecIncomplete

OWN = """
[[accelerator]]
name = "OUR_CARD"
memory_gb = 48
bandwidth_gb_per_s = 864
bf16_tflops = 181

[[shape]]
name = "rack-a"
cores = 64
memory_gb = 512
accelerator = "OUR_CARD"
accelerator_count = 2
usd_per_h = 0.5
"""


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """The package's own."""
    monkeypatch.delenv("HEADRACE_SHAPES", raising=False)
    return read_catalogue()


def spec(machine_type: str, accelerator: str, count: int) -> MachineSpec:
    """A Vertex request's machine."""
    return MachineSpec(machine_type=machine_type, accelerator_type=accelerator, accelerator_count=count)


def test_every_number_has_its_source(catalogue: Catalogue) -> None:
    """Accelerators have memory, bandwidth and a rate; each entry says where its numbers stand."""
    for accelerator in catalogue.accelerators.values():
        assert accelerator.source
        assert accelerator.memory_bytes >= 8 * 10**9
        assert accelerator.bandwidth_bytes_per_s > 10**11
        assert max(accelerator.flops_per_s.values()) > 5 * 10**12
    assert all(shape.source for shape in catalogue.shapes)


@pytest.mark.parametrize(
    ("machine_type", "accelerator", "count"),
    [
        ("g2-standard-4", "NVIDIA_L4", 1),
        ("g2-standard-96", "NVIDIA_L4", 8),
        ("n1-standard-8", "NVIDIA_TESLA_T4", 2),
        ("n1-standard-2", "NVIDIA_TESLA_P4", 1),
        ("n1-highmem-16", "NVIDIA_TESLA_P100", 1),
        ("n1-highcpu-32", "NVIDIA_TESLA_T4", 1),
        ("n1-standard-96", "NVIDIA_TESLA_V100", 8),
        ("a2-highgpu-4g", "NVIDIA_TESLA_A100", 4),
        ("a2-ultragpu-1g", "NVIDIA_A100_80GB", 1),
        ("a3-highgpu-8g", "NVIDIA_H100_80GB", 8),
        ("a3-megagpu-8g", "NVIDIA_H100_MEGA_80GB", 8),
        ("a3-ultragpu-8g", "NVIDIA_H200_141GB", 8),
        ("a4-highgpu-8g", "NVIDIA_B200", 8),
    ],
)
def test_all_three_name_a_shape(catalogue: Catalogue, machine_type: str, accelerator: str, count: int) -> None:
    """Machine type, accelerator type and count, as Vertex spells them."""
    found = find_shape(catalogue, spec(machine_type, accelerator, count))
    assert found is not None
    assert (found.name, found.accelerator_count) == (machine_type, count)


def test_a_machine_type_takes_the_accelerators_that_its_cores_allow(catalogue: Catalogue) -> None:
    """More cores need more devices; a price is that of cores, memory and devices, and none is made up."""
    sixteen = {(each.accelerator.name, each.accelerator_count) for each in catalogue.named("n1-standard-16")}
    assert ("NVIDIA_TESLA_V100", 1) not in sixteen
    assert ("NVIDIA_TESLA_V100", 2) in sixteen
    prices = {
        (each.accelerator.name, each.accelerator_count): each.usd_per_h for each in catalogue.named("n1-standard-4")
    }
    assert prices["NVIDIA_TESLA_T4", 2] == 0.89
    assert prices["NVIDIA_TESLA_P4", 1] is None


def test_a_machine_type_that_may_have_accelerators_may_have_none(catalogue: Catalogue) -> None:
    """N1 by its type alone is the machine without devices; a type that nobody has is told apart from that."""
    found = find_shape(catalogue, spec("n1-standard-4", "", 0))
    assert found is not None
    assert (found.name, found.accelerator, found.accelerator_count, found.cores) == ("n1-standard-4", None, 0, 4)
    with pytest.raises(BadField, match="no machine type"):
        find_shape(catalogue, spec("n1-standart-4", "", 0))


def test_none_of_the_three_leaves_the_choice_to_the_platform(catalogue: Catalogue) -> None:
    """An empty request names no shape."""
    assert find_shape(catalogue, MachineSpec()) is None


@pytest.mark.parametrize("partial", [("g2-standard-4", "", 0), ("", "NVIDIA_L4", 1), ("g2-standard-4", "NVIDIA_L4", 0)])
def test_a_part_of_the_three_is_refused(catalogue: Catalogue, partial: tuple[str, str, int]) -> None:
    """All three or none."""
    with pytest.raises(MachineSpecIncomplete):
        find_shape(catalogue, spec(*partial))


def test_a_machine_type_that_lacks_its_accelerators_is_told_them(catalogue: Catalogue) -> None:
    """With the options to add; what else is missing is named."""
    with pytest.raises(MachineSpecIncomplete) as caught:
        find_shape(catalogue, spec("g2-standard-4", "", 0))
    assert "--accelerator-type NVIDIA_L4 --accelerator-count 1" in caught.value.fix
    with pytest.raises(MachineSpecIncomplete, match="machine type is missing"):
        find_shape(catalogue, spec("", "NVIDIA_L4", 1))


def test_devices_that_a_machine_type_does_not_have_are_refused_with_those_that_it_has(catalogue: Catalogue) -> None:
    """The wrong accelerator, and the wrong number of the right one."""
    with pytest.raises(BadField) as wrong:
        find_shape(catalogue, spec("g2-standard-4", "NVIDIA_TESLA_T4", 1))
    assert "1 × NVIDIA_L4" in wrong.value.evidence
    with pytest.raises(BadField) as count:
        find_shape(catalogue, spec("n1-standard-8", "NVIDIA_TESLA_T4", 3))
    assert "1 × NVIDIA_TESLA_T4 or 2 × NVIDIA_TESLA_T4" in count.value.evidence
    assert "n1-standard-4" in wrong.value.fix
    with pytest.raises(BadField, match="no machine type"):
        find_shape(catalogue, spec("g9-huge", "NVIDIA_L4", 1))
    with pytest.raises(BadField) as typo:
        find_shape(catalogue, spec("g2-standart-12", "NVIDIA_L4", 1))
    assert typo.value.fix.startswith("Did you mean g2-standard-12?")


def test_a_size_is_named_by_its_type_alone(catalogue: Catalogue) -> None:
    """WX-S has no accelerators to be named, and none can be asked for."""
    found = find_shape(catalogue, MachineSpec(machine_type="WX-S"))
    assert found is not None
    assert found.quota_share == 0.25
    with pytest.raises(BadField) as caught:
        find_shape(catalogue, spec("WX-S", "NVIDIA_L4", 1))
    assert caught.value.fix.startswith("Leave out accelerator type and count")


def test_a_name_on_the_command_line_may_say_how_many(catalogue: Catalogue) -> None:
    """Without a count it is the shape with the fewest devices."""
    assert shape_by_name(catalogue, "n1-standard-8").accelerator_count == 1
    assert shape_by_name(catalogue, "N1-standard-8:4").accelerator_count == 4
    assert shape_by_name(catalogue, "n1-standard-8:NVIDIA_TESLA_T4:2").accelerator_count == 2
    with pytest.raises(BadField, match="does not come with 3"):
        shape_by_name(catalogue, "n1-standard-8:3")
    with pytest.raises(BadField, match="does not have 1 × NVIDIA_L4"):
        shape_by_name(catalogue, "n1-standard-8:NVIDIA_L4:1")
    with pytest.raises(MachineSpecIncomplete):
        shape_by_name(catalogue, "n1-standard-8:NVIDIA_TESLA_T4")


def test_shapes_are_ordered_from_cheap_to_dear(catalogue: Catalogue) -> None:
    """Those without a price are in no order and left out."""
    prices = [shape.usd_per_h for shape in cheapest_first(catalogue.shapes)]
    assert len(prices) > 20
    assert prices == sorted(prices, key=lambda price: price or 0)


@pytest.mark.parametrize(
    ("name", "devices", "larger"),
    [
        ("g2-standard-4", 1, "a2-highgpu-1g"),
        ("g2-standard-24:2", 2, "a2-highgpu-2g"),
        ("a2-highgpu-8g", 8, "a2-ultragpu-8g"),
        ("a3-highgpu-1g", 1, "a3-ultragpu-8g"),
        ("a2-megagpu-16g", 16, None),
        ("a4-highgpu-8g", 1, None),
    ],
)
def test_the_next_machine_up_is_the_cheapest_with_more_memory(
    catalogue: Catalogue, name: str, devices: int, larger: str | None
) -> None:
    """On each device, for most models lie on one; and with as many devices as share it."""
    found = next_up(catalogue, shape_by_name(catalogue, name), devices)
    assert (found.name if found else None) == larger


def test_sizes_of_watsonx_have_parameters_and_shares(catalogue: Catalogue) -> None:
    """26, 53 and 106 billion; a quarter, a half, a whole."""
    sizes = {shape.name: (shape.max_parameters, shape.quota_share) for shape in catalogue.shapes if shape.quota_share}
    assert sizes == {"WX-S": (26 * 10**9, 0.25), "WX-M": (53 * 10**9, 0.5), "WX-L": (106 * 10**9, 1.0)}


def test_time_series_sizes_carry_the_documents_users(catalogue: Catalogue) -> None:
    """Six kinds of request; S, M, L and XL."""
    table = """1000,23x100,6,12,25,50
500,15x80,10,21,42,85
250,15x40,13,26,53,106
125,15x20,13,27,54,109
60,15x10,14,28,56,112
30,15x5,14,28,56,113"""
    rows = list(csv.reader(table.splitlines()))
    for column, name in enumerate(("TS-S", "TS-M", "TS-L", "TS-XL"), start=2):
        users = shape_by_name(catalogue, name).users
        assert [(str(points), f"{series}x{targets}", str(count)) for points, series, targets, count in users] == [
            (row[0], row[1], row[column]) for row in rows
        ]


def test_operators_add_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `shapes.toml` in the data directory, or by the file that the environment names."""
    monkeypatch.delenv("HEADRACE_SHAPES", raising=False)
    (tmp_path / "shapes.toml").write_text(OWN)
    own = shape_by_name(read_catalogue(tmp_path), "rack-a")
    assert own.accelerator is not None
    assert (own.kind, own.accelerator.memory_bytes, own.accelerator_count) == ("operator", 48 * 10**9, 2)
    monkeypatch.setenv("HEADRACE_SHAPES", str(tmp_path / "shapes.toml"))
    assert shape_by_name(read_catalogue(), "rack-a") == own
    assert len(read_catalogue().shapes) > 20


def test_an_operators_shape_replaces_ours_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own price, say."""
    monkeypatch.delenv("HEADRACE_SHAPES", raising=False)
    (tmp_path / "shapes.toml").write_text('[[shape]]\nname = "g2-standard-4"\ncores = 4\nmemory_gb = 16\n')
    (shape,) = read_catalogue(tmp_path).named("g2-standard-4")
    assert (shape.kind, shape.accelerator) == ("operator", None)


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("[[shape", "Expected"),
        ("[[shape]]\nname = 'a'\ncolour = 'red'\n", "colour"),
        ("[[shape]]\nname = 'a b'\n", "regex"),
        ("[[shape]]\nname = 'a'\ncores = -1\n", "cores"),
        ("[[shape]]\nname = 'a'\ncores = 1\n", "both cores and memory_gb"),
        ("[[shape]]\nname = 'a'\ncores = 1\nmemory_gb = 1\naccelerator = 'NVIDIA_L4'\n", "accelerator_count"),
        (
            "[[shape]]\nname = 'a'\ncores = 1\nmemory_gb = 1\naccelerator = 'L5'\naccelerator_count = 1\n",
            "L5, which is no accelerator",
        ),
        ("[[shape]]\nname = 'a'\ncores = 1\nmemory_gb = 1\n" * 2, "twice"),
        ("[[series]]\nmachine_types = [['a', 1, 1]]\naccelerators = [['L5', 1, 8]]\n", "L5, which is no accelerator"),
    ],
)
def test_a_faulty_file_says_what_is_wrong(
    text: str, evidence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the file and the fault in it."""
    monkeypatch.delenv("HEADRACE_SHAPES", raising=False)
    (tmp_path / "shapes.toml").write_text(text)
    with pytest.raises(BadField, match=r"shapes\.toml") as caught:
        read_catalogue(tmp_path)
    assert evidence in caught.value.evidence


def test_a_file_that_the_environment_names_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo in its path is not taken for no shapes."""
    monkeypatch.setenv("HEADRACE_SHAPES", str(tmp_path / "none.toml"))
    with pytest.raises(BadField, match=r"none\.toml"):
        read_catalogue()


def test_a_file_of_shapes_that_has_no_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is refused before it is read, though it has no length."""
    monkeypatch.setenv("HEADRACE_SHAPES", "/dev/zero")
    with pytest.raises(BadField, match="/dev/zero") as caught:
        read_catalogue()
    assert "crw" in caught.value.evidence


FOUND = MachineShape(
    memory_total_bytes=16 * 10**9,
    memory_available_bytes=8 * 10**9,
    cores=4.0,
    cpu_model="A CPU",
    cpu_flags=(),
    disk_total_bytes=1,
    disk_free_bytes=1,
    open_files_soft=1,
    open_files_hard=1,
    gpus=(),
)


def test_this_machine_is_a_shape_of_its_own(catalogue: Catalogue) -> None:
    """Without a GPU its memory and cores count, at rates that were reached."""
    shape = shape_of(FOUND, catalogue.accelerators)
    assert (shape.memory_bytes, shape.accelerator, shape.measured) == (16 * 10**9, None, True)
    assert shape.bandwidth_bytes_per_s == 4 * 13e9


@pytest.mark.parametrize(
    ("name", "memory_gb", "like"),
    [
        ("NVIDIA L4", 24, "NVIDIA_L4"),
        ("Tesla T4", 16, "NVIDIA_TESLA_T4"),
        ("NVIDIA A100-SXM4-40GB", 42, "NVIDIA_TESLA_A100"),
        ("NVIDIA A100-SXM4-80GB", 85, "NVIDIA_A100_80GB"),
        ("NVIDIA H200", 150, "NVIDIA_H200_141GB"),
        ("NVIDIA GeForce RTX 4090", 24, None),
    ],
)
def test_a_gpu_that_is_known_has_its_rates(catalogue: Catalogue, name: str, memory_gb: int, like: str | None) -> None:
    """By the driver's name and its memory; of an unknown one nothing is guessed."""
    gpu = Gpu(0, "GPU-1", name, memory_gb * 10**9, 0, "1", "8.9")
    accelerator = shape_of(msgspec.structs.replace(FOUND, gpus=(gpu, gpu)), catalogue.accelerators).accelerator
    assert accelerator is not None
    assert accelerator.memory_bytes == memory_gb * 10**9
    expected = catalogue.accelerators[like].bandwidth_bytes_per_s if like else 0
    assert accelerator.bandwidth_bytes_per_s == expected


def test_accelerators_are_spelled_as_in_requests(catalogue: Catalogue) -> None:
    """What a Vertex client may name is what the catalogue knows."""
    from headrace.contracts.vertex.machine_types import ACCELERATOR_TYPES

    assert set(catalogue.accelerators) <= set(ACCELERATOR_TYPES.values())
