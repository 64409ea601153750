"""Measuring the machine that the tests run on, in the environment of a real engine."""

from pathlib import Path

from headrace.cli.calibrate import measure
from headrace.hardware import look, read_calibration, write_calibration
from headrace.resources.layout import Layout


def test_this_machine_is_measured_and_stays_so(tmp_path: Path) -> None:
    """Memory is read and matrices are multiplied at rates that a machine can have; what was measured is found again."""
    found = measure(Layout(tmp_path))
    assert 1e8 < found.processor.bandwidth_bytes_per_s < 1e13
    assert set(found.processor.flops_per_s) == {"bfloat16", "float32"}
    assert found.scatter >= 0
    assert found.load >= 0
    assert all(1e8 < rate < 1e16 for rate in found.processor.flops_per_s.values())
    write_calibration(tmp_path, found)
    assert read_calibration(tmp_path, look(tmp_path)) == found
