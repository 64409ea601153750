"""The promises of runtimes' environments, kept with the real venv and pip and a package index made of one wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from headrace.resources.errors import Cancelled, DiskFull, Failure, RuntimeInstallFailed
from headrace.runtimes import EngineCommand, EngineEnd, Environment, Environments, Launch, engines, environments
from headrace.runtimes.pip import TORCH_INDEX_VARIABLE, step


class Pinned:
    """A runtime with pins of the test's choosing."""

    name = "tiny"
    disk_bytes = 1
    model_types: frozenset[str] = frozenset()

    def __init__(self, requirements: str, *, complete: bool = False) -> None:
        self.requirements = requirements
        self.complete = complete

    def command(self, launch: Launch, environment: Environment) -> EngineCommand:
        """Not asked for here."""
        raise AssertionError

    def classify(self, end: EngineEnd) -> Failure:
        """Not asked for here."""
        raise AssertionError


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip can see."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    add_wheel(folder, "1.0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def add_wheel(folder: Path, version: str, needs: str = "") -> None:
    """The smallest wheel there can be."""
    info = f"tinypackage-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tinypackage-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinypackage.py", f"VERSION = {version!r}\n")
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinypackage\nVersion: {version}\n{needed}")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_an_installed_environment_runs_what_is_pinned_and_our_engines(tmp_path: Path) -> None:
    """It has the pinned version, the engines' code beside it, a size, no mismatch, and is not made twice."""
    root, runtime = tmp_path / "runtimes", Pinned("tinypackage==1.0\n")
    assert not Environments(root).inspect(runtime).installed
    steps: list[str] = []
    environment = Environments(root).install(runtime, steps.append)
    said = subprocess.run(
        [
            environment.python,
            "-P",
            "-c",
            "import tinypackage, headrace_engines as e; print(tinypackage.VERSION, e.__file__)",
        ],
        env={"PYTHONPATH": str(environment.engines_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said == ["1.0", str(environment.engines_path / "headrace_engines" / "__init__.py")]
    report = Environments(root).inspect(runtime)
    assert (report.installed, report.versions, report.mismatch) == (True, {"tinypackage": "1.0"}, "")
    assert report.engines_stamp == engines.stamp() == environment.engines_path.name
    assert report.size_bytes > 1_000_000
    assert "Installing 1 packages" in steps

    again: list[str] = []
    assert Environments(root).install(runtime, again.append) == environment == Environments(root).find(runtime)
    assert again == []


def test_what_differs_from_the_pins_is_said_in_a_sentence(tmp_path: Path) -> None:
    """A package changed by hand, engines of another version and an environment of other pins are each told."""
    root, runtime = tmp_path / "runtimes", Pinned("tinypackage==1.0\n")
    environment = Environments(root).install(runtime)
    (metadata,) = environment.path.glob("lib/python*/site-packages/tinypackage-1.0.dist-info")
    metadata.rename(metadata.with_name("tinypackage-0.9.dist-info"))
    renamed = metadata.with_name("tinypackage-0.9.dist-info") / "METADATA"
    renamed.write_text(renamed.read_text().replace("1.0", "0.9"))
    environment.engines_path.rename(environment.engines_path.with_name("0.0.1+000000000000"))
    report = Environments(root).inspect(runtime)
    assert "tinypackage is 0.9, pinned 1.0" in report.mismatch
    assert "0.0.1+000000000000" in report.mismatch

    other = Environments(root).inspect(Pinned("tinypackage==2.0\n"))
    assert not other.installed
    assert environment.path.name in other.mismatch
    assert Environments(root).remove(runtime) > 0
    assert Environments(root).inspect(Pinned("tinypackage==2.0\n")).mismatch == ""


def test_a_failed_installation_says_what_pip_said_and_leaves_nothing(tmp_path: Path) -> None:
    """The evidence is pip's own words; the half-made environment is gone; the next attempt is not in its way."""
    root = tmp_path / "runtimes"
    with pytest.raises(RuntimeInstallFailed) as raised:
        Environments(root).install(Pinned("tinypackage==7.7\n"))
    assert "tinypackage==7.7" in raised.value.evidence
    assert TORCH_INDEX_VARIABLE in raised.value.fix
    assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == []


def test_where_the_requirements_are_complete_nothing_else_is_looked_for(wheels: Path, tmp_path: Path) -> None:
    """A package whose own needs cannot be met, or must not be, is installed all the same."""
    add_wheel(wheels, "3.0", needs="no-such-package")
    pins = "tinypackage==3.0\n"
    with pytest.raises(RuntimeInstallFailed):
        Environments(tmp_path / "runtimes").install(Pinned(pins))
    Environments(tmp_path / "runtimes").install(Pinned(pins, complete=True))
    assert Environments(tmp_path / "runtimes").inspect(Pinned(pins)).versions == {"tinypackage": "3.0"}


def test_what_a_dead_attempt_left_is_replaced(tmp_path: Path) -> None:
    """A folder without a manifest is no environment, and does not stop the next attempt."""
    root, runtime = tmp_path / "runtimes", Pinned("tinypackage==1.0\n")
    path = Environments(root).install(runtime).path
    (path / environments.MANIFEST).unlink()
    (path / "rubbish").touch()
    assert Environments(root).find(runtime) is None
    assert "not complete" in Environments(root).inspect(runtime).mismatch
    assert Environments(root).install(runtime).path == path
    assert not (path / "rubbish").exists()


def test_two_that_install_the_same_make_it_once(tmp_path: Path) -> None:
    """One builds, the other waits and gets the same."""
    root, runtime = tmp_path / "runtimes", Pinned("tinypackage==1.0\n")
    steps: list[str] = []
    found: list[Environment] = []
    threads = [
        threading.Thread(target=lambda: found.append(Environments(root).install(runtime, steps.append)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert steps.count("Making the environment") == 1


def test_a_cancelled_installation_leaves_nothing(tmp_path: Path) -> None:
    """Once cancelled, processes and folders of the attempt are gone."""
    root = tmp_path / "runtimes"
    with pytest.raises(Cancelled):
        Environments(root).install(Pinned("tinypackage==1.0\n"), cancelled=lambda: True)
    assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == []


def test_a_full_disk_is_told_before_anything_is_made(tmp_path: Path) -> None:
    """An environment larger than the free space is not begun."""
    runtime = Pinned("tinypackage==1.0\n")
    runtime.disk_bytes = shutil.disk_usage(tmp_path).total + 1
    with pytest.raises(DiskFull) as raised:
        Environments(tmp_path / "runtimes").install(runtime)
    assert "HEADRACE_RUNTIMES_DIR" in raised.value.fix


def test_engines_of_a_new_content_are_placed_beside_the_old(tmp_path: Path) -> None:
    """Placing is repeatable, leaves other stamps alone, and nothing half copied is ever seen."""
    (tmp_path / "engines" / "0.0.1+aaaaaaaaaaaa").mkdir(parents=True)
    target = engines.place(tmp_path)
    assert engines.place(tmp_path) == target
    assert set(engines.placed(tmp_path)) == {"0.0.1+aaaaaaaaaaaa", engines.stamp()}
    assert {path.name for path in (tmp_path / "engines").iterdir()} == set(engines.placed(tmp_path))
    assert (target / "headrace_engines" / "transformers" / "requirements.txt").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Collecting torch==2.13.0 (from -r requirements.txt (line 1))", "Resolving torch"),
        (
            "  Downloading torch-2.13.0-cp311-manylinux.whl (190.1 MB)",
            "Downloading torch-2.13.0-cp311-manylinux.whl (190.1 MB)",
        ),
        ("Processing /wheels/torch-2.13.0.whl (from -r requirements.txt (line 1))", "Reading torch-2.13.0.whl"),
        ("  Downloading http://host/a/b-1.whl (2 kB)", "Downloading b-1.whl (2 kB)"),
        ("Installing collected packages: mpmath, sympy, torch", "Installing 3 packages"),
        ("  Using cached jinja2-3.1.6-py3-none-any.whl", ""),
        ("", ""),
    ],
)
def test_lines_of_pip_become_steps(line: str, said: str) -> None:
    """What takes long is told, what does not is not."""
    assert step(line) == said


def test_the_real_runtimes_pins_are_exact() -> None:
    """Every line of every runtime's requirements pins one version."""
    from headrace.runtimes import RUNTIMES

    for runtime in RUNTIMES.values():
        lines = [line for line in runtime.requirements.splitlines() if line.strip() and not line.startswith("#")]
        assert len(lines) == len(environments._pins(runtime.requirements)) > 0
    assert sys.version_info >= (3, 11)


def test_what_is_removed_while_it_is_looked_at_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node looks at environments while somebody removes them."""
    root, runtime = tmp_path / "runtimes", Pinned("tinypackage==1.0\n")
    Environments(root).install(runtime)
    versions = environments._versions

    def removed_meanwhile(path: Path, requirements: str) -> dict[str, str]:
        Environments(root).remove(runtime)
        return versions(path, requirements)

    monkeypatch.setattr(environments, "_versions", removed_meanwhile)
    assert "tinypackage is missing" in Environments(root).inspect(runtime).mismatch
    assert not Environments(root).inspect(runtime).installed
