"""Conversions on a node: once, whole or not at all, told, stoppable. The converter is a stand-in that really runs."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from node_standins import NothingToInstall, ScriptedRuntime

from headrace.node.conversion import Converted, convert
from headrace.node.stager import Stager
from headrace.resources.assignments import StageOrder, StageReport
from headrace.resources.errors import Cancelled, ConversionFailed, DiskFull, HeadraceError
from headrace.resources.models import Dtype
from headrace.runtimes import Conversion, EngineCommand, Environment, Installable
from headrace.storage import ModelCache, fingerprint, open_artifacts

SRC = Path(__file__).parents[2] / "src"
STANDIN = Path(__file__).parent / "converter_standin.py"


class StandInConversion(msgspec.Struct, frozen=True):
    """Runs the stand-in with this interpreter."""

    key: str = "openvino-own-1"
    reason: str = "OpenVINO IR (bf16) from safetensors, 1 MB"
    otherwise: Conversion | None = None

    @property
    def converter(self) -> Installable:
        """Nobody installs it."""
        return ScriptedRuntime()

    def command(self, source: Path, target: Path, environment: Environment) -> EngineCommand:
        """The stand-in, as a child of this process."""
        argv = (sys.executable, str(STANDIN), str(source), str(target), "--parent", str(os.getpid()))
        return EngineCommand(argv, {"PATH": os.defpath, "PYTHONPATH": str(SRC)})


class ConvertingRuntime(ScriptedRuntime):
    """Its engines load converted folders; float32 has a form of its own, every other format the same."""

    name = "converting"

    def conversion(self, model_dir: Path, dtype: Dtype) -> StandInConversion:
        """The stand-in."""
        return StandInConversion(key=f"openvino-{'f32' if dtype == 'float32' else 'own'}-1")


def model(root: Path, behaviour: str) -> Path:
    """A staged model."""
    folder = root / "f00d"
    folder.mkdir(parents=True)
    (folder / "behaviour").write_text(behaviour)
    return folder


def converted(
    source: Path,
    conversion: Conversion = StandInConversion(),  # noqa: B008 - it never changes
    tell: Callable[[str], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Converted:
    """Convert where nothing needs to be installed."""
    environment = Environment(Path(sys.prefix), Path(sys.prefix))
    return convert(conversion, source, lambda _: environment, lambda detail, *_: tell(detail), cancelled)


def runs(source: Path) -> list[int]:
    """Process ids of the converters that ran."""
    return [int(line) for line in (source.parent / "runs").read_text().split()]


def remaining(root: Path) -> set[str]:
    """Folders, hidden ones too."""
    return {path.name for path in root.iterdir() if path.is_dir()}


def wait_for_end(pid: int) -> None:
    """Block until a process that may be no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 60)[0], f"process {pid} goes on"
    os.close(descriptor)


def test_a_folder_is_converted_once_for_each_content_and_key(tmp_path: Path) -> None:
    """The second asks for nothing; another key is another folder beside it; the source's small files come along."""
    source = model(tmp_path, "")
    first, what, anew = converted(source)
    assert (first.name, what, anew) == ("f00d.openvino-own-1", StandInConversion().reason, True)
    assert (first / "openvino_model.xml").read_text() == "whole"
    assert (first / "behaviour").exists()
    assert converted(source) == (first, what, False)
    assert len(runs(source)) == 1
    assert converted(source, StandInConversion(key="openvino-f16-1"))[0] != first
    assert len(runs(source)) == 2


def test_many_who_ask_at_once_get_one_conversion(tmp_path: Path) -> None:
    """One works, the others wait for it and get the same folder."""
    source = model(tmp_path, "slow")
    together = threading.Barrier(4)

    def ask() -> Path:
        together.wait()
        return converted(source)[0]

    with ThreadPoolExecutor(4) as pool:
        folders = {pool.submit(ask).result for _ in range(4)}
        assert len({result() for result in folders}) == 1
    assert len(runs(source)) == 1


@pytest.mark.parametrize(
    ("behaviour", "kind", "says"),
    [
        ("refuse", ConversionFailed, ("Not this model.", "lm_head")),
        ("full", DiskFull, ("The disk filled up", "No space left on device")),
        ("memory", ConversionFailed, ("ran out of memory", "MemoryError")),
        ("killed", ConversionFailed, ("ran out of memory, or was killed", "")),
        ("crash", ConversionFailed, ("killed by SIGSEGV", "Segmentation fault")),
        ("defect", ConversionFailed, ("an error that it does not know", "KeyError: 'weights'")),
    ],
)
def test_a_failure_says_what_happened_and_leaves_nothing(
    behaviour: str, kind: type[HeadraceError], says: tuple[str, str], tmp_path: Path
) -> None:
    """Each end of the program becomes an error with evidence and a fix; no half folder stays."""
    source = model(tmp_path, behaviour)
    with pytest.raises(kind) as caught:
        converted(source)
    assert says[0] in caught.value.message
    assert says[1] in caught.value.evidence
    assert caught.value.fix
    assert remaining(tmp_path) == {"f00d"}


def test_a_refusal_leads_to_the_next_way_and_is_told(tmp_path: Path) -> None:
    """What one converter does not take another one may; any other failure is final."""
    source = model(tmp_path, "refuse")

    class Other(StandInConversion, frozen=True):
        def command(self, source: Path, target: Path, environment: Environment) -> EngineCommand:
            return EngineCommand(("/bin/sh", "-c", 'echo general > "$1/made"', "sh", str(target)), {})

    told: list[str] = []
    ways = StandInConversion(otherwise=Other(key="openvino-f16-1", reason="OpenVINO IR (f16)"))
    target, what, anew = converted(source, ways, told.append)
    assert (target.name, what, anew) == ("f00d.openvino-f16-1", "OpenVINO IR (f16)", True)
    assert any("Not this model." in sentence and "another way" in sentence for sentence in told)
    assert converted(source, ways) == (target, what, False)
    assert len(runs(source)) == 1, "the one that refuses is not asked again"


def test_a_full_disk_is_found_before_the_converter_starts(tmp_path: Path) -> None:
    """Eight tebibytes of weights are refused with nothing written."""
    source = model(tmp_path, "")
    (source / "model.safetensors").touch()
    os.truncate(source / "model.safetensors", 8 * 1024**4)
    with pytest.raises(DiskFull, match="Nothing was written"):
        converted(source)
    assert not (tmp_path / "runs").exists()


def test_one_that_is_cancelled_ends_its_program(tmp_path: Path) -> None:
    """Within the next half second: the process is gone and so is its folder."""
    source = model(tmp_path, "hang")
    working = threading.Event()

    def tell(detail: str) -> None:
        if "at work" in detail:
            working.set()

    with pytest.raises(Cancelled):
        converted(source, tell=tell, cancelled=working.is_set)
    with pytest.raises(ProcessLookupError):
        os.kill(runs(source)[0], 0)
    assert remaining(tmp_path) == {"f00d"}


def test_a_node_that_is_killed_takes_its_converter_along(tmp_path: Path) -> None:
    """After kill -9 no process goes on, no folder looks whole, and the next node converts as if nothing had been."""
    source = model(tmp_path, "hang")
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from pathlib import Path\n"
        "from test_node_conversion import converted\n"
        "converted(Path(sys.argv[2]), tell=lambda detail: print(detail, flush=True))\n"
    )
    node = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(source)], stdout=subprocess.PIPE, text=True
    )
    assert node.stdout is not None
    with node, node.stdout as told:
        assert any("at work" in line for line in told)
        node.kill()
    wait_for_end(runs(source)[0])
    assert remaining(tmp_path) == {"f00d", ".f00d.openvino-own-1.partial"}
    (source / "behaviour").write_text("")
    assert converted(source)[0].name == "f00d.openvino-own-1"
    assert remaining(tmp_path) == {"f00d", "f00d.openvino-own-1"}


class Seen:
    """A stager of the converting runtime, and every report that it gave."""

    def __init__(self, root: Path) -> None:
        self.reports: list[StageReport] = []
        runtime = ConvertingRuntime()
        self.stager = Stager(ModelCache(root), {runtime.name: runtime}, NothingToInstall(), self._changed)

    def _changed(self) -> None:
        self.reports.extend(self.stager.reports)


def order(folder: Path, dtype: Dtype = "auto") -> StageOrder:
    """For the folder."""
    uri = f"file://{folder}"
    return StageOrder(artifact_uri=uri, fingerprint=fingerprint(open_artifacts(uri)), runtime="converting", dtype=dtype)


def test_staging_converts_and_tells_what_it_cost(tmp_path: Path) -> None:
    """The phase says what is made and from what; the end says how long it took, or that it was there already."""
    source = model(tmp_path, "")

    async def stage() -> None:
        seen = Seen(tmp_path / "models")
        staged = await seen.stager.staged(order(source))
        assert (staged.model_dir / "openvino_model.xml").exists()
        phases = [report.phase for report in seen.reports]
        assert phases == sorted(phases, key=["installing", "copying", "converting", "done"].index)
        converting = next(report for report in seen.reports if report.phase == "converting")
        assert converting.detail == "OpenVINO IR (bf16) from safetensors, 1 MB."
        assert seen.reports[-1].detail.startswith("Converted to OpenVINO IR (bf16) from safetensors, 1 MB, in ")
        found = "OpenVINO IR (bf16) from safetensors, 1 MB, was there already: nothing to convert."
        assert (seen.reports[-1].found, seen.reports[-1].done_at > 0) == (found, True)
        again = Seen(tmp_path / "models")
        await again.stager.staged(order(source))
        assert (again.reports[-1].phase, again.reports[-1].detail) == ("done", found)

    asyncio.run(stage())


def test_each_number_format_is_an_order_of_its_own(tmp_path: Path) -> None:
    """Three orders that differ in it have three reports, and share what comes out the same."""
    source = model(tmp_path, "slow")

    async def stage() -> None:
        seen = Seen(tmp_path / "models")
        orders = [order(source, "auto"), order(source, "bfloat16"), order(source, "float32")]
        seen.stager.want(orders)
        staged = await asyncio.gather(*(seen.stager.staged(each) for each in orders))
        assert {report.dtype for report in seen.stager.reports} == {"auto", "bfloat16", "float32"}
        assert staged[0].model_dir == staged[1].model_dir != staged[2].model_dir
        assert len(runs(staged[0].model_dir)) == 2

    asyncio.run(stage())


def test_an_order_that_goes_away_stops_its_conversion(tmp_path: Path) -> None:
    """Dropped while the converter works: it is ended, and who waited is told."""
    source = model(tmp_path, "hang")

    async def stage() -> None:
        seen = Seen(tmp_path / "models")
        wanted = order(source)
        seen.stager.want([wanted])
        waiting = asyncio.create_task(seen.stager.staged(wanted))
        while not any("at work" in one.detail for one in seen.stager.reports):  # noqa: ASYNC110 - a level, not an event
            await asyncio.sleep(0.01)
        seen.stager.want([])
        with pytest.raises(Cancelled):
            await waiting
        assert not any(name.endswith(".partial") for name in remaining(tmp_path / "models"))

    asyncio.run(stage())
