"""Which way a model's folder is converted, and under which key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.resources.models import Dtype
from headrace.runtimes import Environment
from headrace.runtimes.conversions import Converter, ProgramConversion, openvino_conversion


class Engine:
    """An engine's environment."""

    name = "openvino"
    complete = True
    disk_bytes = 0

    def __init__(self, openvino: str = "2026.4.1", starlette: str = "1.10.0") -> None:
        self.requirements = f"openvino=={openvino}\nstarlette=={starlette}\n"


def conversion(
    folder: Path, config: dict[str, Any], dtype: Dtype = "auto", engine: Engine | None = None, *, tokenizer: bool = True
) -> ProgramConversion:
    """Of a folder with this configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"x" * 2_000_000)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    if tokenizer:
        (folder / "tokenizer.json").touch()
    made = openvino_conversion(folder, dtype, engine or Engine())
    assert isinstance(made, ProgramConversion)
    return made


def test_known_families_go_the_direct_way_in_the_engines_own_environment(tmp_path: Path) -> None:
    """With the general way behind it; the sentence says form, source and size."""
    made = conversion(tmp_path / "m", {"model_type": "llama", "torch_dtype": "bfloat16"})
    assert (made.way, made.stored, made.converter.name) == ("direct", "own", "openvino")
    assert made.reason == "OpenVINO IR (bf16) from safetensors, 2 MB"
    assert isinstance(made.otherwise, ProgramConversion)
    assert (made.otherwise.way, made.otherwise.converter.name) == ("general", "openvino-converter")


@pytest.mark.parametrize(
    ("config", "tokenizer"), [({"model_type": "gpt_neox"}, True), ({"model_type": "llama"}, False)]
)
def test_the_rest_goes_the_general_way(config: dict[str, Any], *, tokenizer: bool, tmp_path: Path) -> None:
    """Other families, and folders whose tokenizer is not a tokenizer.json."""
    made = conversion(tmp_path / "m", config, tokenizer=tokenizer)
    assert (made.way, made.otherwise) == ("general", None)
    assert made.reason == "OpenVINO IR (f16) from safetensors, 2 MB, by optimum-intel"


def test_only_float32_depends_on_the_number_format(tmp_path: Path) -> None:
    """Sixteen-bit numbers stay what they are, whatever is computed in; so they are converted once."""
    formats: tuple[Dtype, ...] = ("auto", "float32", "bfloat16", "float16")
    half = [conversion(tmp_path / "m", {"model_type": "llama", "dtype": "bfloat16"}, dtype) for dtype in formats]
    assert len({each.key for each in half}) == 1
    full = [conversion(tmp_path / "m", {"model_type": "llama", "dtype": "float32"}, dtype) for dtype in formats]
    assert [each.stored for each in full] == ["own", "own", "bf16", "f16"]
    assert len({each.key for each in full}) == 3


def test_the_key_follows_the_libraries_that_write_and_nothing_else(tmp_path: Path) -> None:
    """Another OpenVINO converts again; another web framework does not."""
    config = {"model_type": "llama"}
    key = conversion(tmp_path / "m", config).key
    assert conversion(tmp_path / "m", config, engine=Engine(starlette="9")).key == key
    assert conversion(tmp_path / "m", config, engine=Engine(openvino="2027.1")).key != key
    assert "/" not in key


def test_a_converter_knows_its_parent_and_keeps_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs isolated from the working directory, offline, without telemetry and without the node's secrets."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    made = conversion(tmp_path / "m", {"model_type": "llama"})
    command = made.command(Path("/source"), Path("/target"), Environment(Path("/env"), Path("/engines")))
    assert command.argv[:4] == ("/env/bin/python", "-P", "-m", "headrace_engines.convert.direct")
    assert "--parent" in command.argv
    assert (command.env["HF_HUB_OFFLINE"], command.env["CI"]) == ("1", "true")
    assert "AWS_SECRET_ACCESS_KEY" not in command.env


def test_the_converters_environment_brings_no_telemetry() -> None:
    """Its list is complete, so that pip adds nothing to it: neither OpenVINO's telemetry nor a CUDA build of torch."""
    assert Converter().complete
    assert "openvino-telemetry" not in [line.partition("==")[0] for line in Converter().requirements.splitlines()]
    assert "torchvision" not in Converter().requirements
