"""What was measured of a machine: kept, used in its plans, and forgotten on another machine."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from headrace.cli.app import run
from headrace.hardware import (
    Calibration,
    Gpu,
    MachineShape,
    Rates,
    calibrated,
    identity,
    look,
    read_calibration,
    read_catalogue,
    shape_of,
    write_calibration,
)

MACHINE = MachineShape(16 << 30, 8 << 30, 4.0, "A CPU", ("avx2",), 1 << 40, 1 << 39, 1024, -1, ())
GPU = Gpu(0, "GPU-1", "NVIDIA L4", 24 << 30, 24 << 30, "570", "8.9")
PROCESSOR = Rates(20e9, {"bfloat16": 900e9, "float32": 300e9})
FOUND = Calibration(machine=identity(MACHINE), measured_at=1.8e9, torch="2.13.0", processor=PROCESSOR)
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}


def test_what_was_measured_takes_the_place_of_what_is_assumed(tmp_path: Path) -> None:
    """All cores together read and compute at the measured rates; float16, which was not measured, as float32."""
    write_calibration(tmp_path, FOUND)
    shape = calibrated(shape_of(MACHINE, {}), read_calibration(tmp_path, MACHINE))
    assert shape.bandwidth_bytes_per_s == 20e9
    assert [shape.flops_per_s(name) for name in ("bfloat16", "float32", "float16")] == [900e9, 300e9, 300e9]
    assert shape.measured
    assert "headrace calibrate" in shape.rates


def test_a_gpu_keeps_its_datasheet_until_it_was_measured_itself() -> None:
    """The processor's rates say nothing of the GPU; its own replace the datasheet's, and nothing is taken off them."""
    machine = msgspec.structs.replace(MACHINE, gpus=(GPU,))
    known = read_catalogue().accelerators
    as_found = shape_of(machine, known)
    assert calibrated(as_found, FOUND) == as_found
    whole = msgspec.structs.replace(FOUND, accelerator=Rates(270e9, {"bfloat16": 90e12}))
    shape = calibrated(as_found, whole)
    assert (shape.bandwidth_bytes_per_s, shape.flops_per_s("bfloat16"), shape.measured) == (270e9, 90e12, True)


@pytest.mark.parametrize(
    "changes",
    [{"cores": 8.0}, {"cpu_model": "Another CPU"}, {"cpu_flags": ("avx2", "amx_bf16")}, {"gpus": (GPU,)}],
    ids=lambda changes: next(iter(changes)),
)
def test_another_machine_is_not_measured(tmp_path: Path, changes: dict[str, object]) -> None:
    """Another processor, other cores or other GPUs: what was measured before does not count."""
    write_calibration(tmp_path, FOUND)
    assert read_calibration(tmp_path, msgspec.structs.replace(MACHINE, **changes)) is None


def test_the_same_machine_stays_measured_while_it_fills_up(tmp_path: Path) -> None:
    """Free memory and disk change by the minute and are no other machine."""
    write_calibration(tmp_path, FOUND)
    fuller = msgspec.structs.replace(MACHINE, memory_available_bytes=1, disk_free_bytes=1)
    assert read_calibration(tmp_path, fuller) == FOUND


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"machine": 1}'])
def test_a_broken_file_counts_as_nothing_measured(tmp_path: Path, content: bytes) -> None:
    """Plans go on by what is assumed."""
    (tmp_path / "calibration.json").write_bytes(content)
    assert read_calibration(tmp_path, MACHINE) is None
    assert read_calibration(tmp_path / "nowhere", MACHINE) is None


def test_a_plan_says_whose_rates_it_goes_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those assumed until `headrace calibrate` measured this machine."""
    config = tmp_path / "model" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(CONFIG))
    command = ["plan", str(config.parent), "--machine", "this-machine", "--data-dir", str(tmp_path), "--json"]
    assert run(command) == 0
    before = json.loads(capsys.readouterr().out)
    assert "`headrace calibrate` measures this machine" in before["rates"]
    here = msgspec.structs.replace(FOUND, machine=identity(look(tmp_path)), accelerator=PROCESSOR)
    write_calibration(tmp_path, here)
    assert run(command) == 0
    after = json.loads(capsys.readouterr().out)
    assert "measured here on 2027-01-15" in after["rates"]
    assert after["prediction"] != before["prediction"]


def test_what_was_measured_on_a_busy_machine_is_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A load above half the cores, or repeats that scatter: said where it is shown; an idle machine's rates are not."""
    here = msgspec.structs.replace(FOUND, machine=identity(look(tmp_path)))
    write_calibration(tmp_path, here)
    show = ["calibrate", "--show", "--data-dir", str(tmp_path)]
    assert run(show) == 0
    assert "warning" not in (shown := capsys.readouterr().out)
    assert "all cores" in shown
    for changes in ({"load": look(tmp_path).cores}, {"scatter": 0.5}):
        write_calibration(tmp_path, msgspec.structs.replace(here, **changes))
        assert run(show) == 0
        assert "warning: " in capsys.readouterr().out
        assert run([*show, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["warnings"]) == 1


def test_what_was_measured_can_be_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plans go by what is assumed again; forgetting twice does no harm."""
    write_calibration(tmp_path, msgspec.structs.replace(FOUND, machine=identity(look(tmp_path))))
    for said in ("Forgotten.", "Nothing was measured."):
        assert run(["calibrate", "--reset", "--data-dir", str(tmp_path)]) == 0
        assert said in capsys.readouterr().out
    assert run(["calibrate", "--show", "--data-dir", str(tmp_path)]) == 0
    assert "Nothing was measured of this machine" in capsys.readouterr().out


def test_without_torch_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says which runtime brings it."""
    monkeypatch.setenv("HEADRACE_RUNTIMES_DIR", str(tmp_path / "none"))
    assert run(["calibrate", "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "CALIBRATION_FAILED" in said.err
    assert "headrace runtimes install transformers" in said.err
