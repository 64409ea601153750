"""``headrace calibrate``: measures this machine once, so that plans go by what it does."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command
from headrace.cli.output import size
from headrace.cli.progress import Steps
from headrace.cli.serve import DataDirOption
from headrace.resources.errors import CalibrationFailed
from headrace.resources.layout import Layout, default_data_dir

if TYPE_CHECKING:
    from headrace.hardware import Calibration, Rates
    from headrace.runtimes import Environment

_WITH_TORCH = ("transformers", "vllm")
_TIMEOUT_S = 300.0
"""A machine that needs longer for five seconds of arithmetic is not measured but waited for."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "calibrate", server=False, panel=LOOK)(calibrate)


def calibrate(
    invocation: Invocation,
    show: Annotated[bool, typer.Option("--show", help="Show what was measured, and measure nothing.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was measured.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Measure how fast this machine reads memory and computes, for `headrace plan`; leave it idle meanwhile."""
    from headrace.hardware import (  # noqa: PLC0415  # `headrace version` starts without it
        forget_calibration,
        look,
        read_calibration,
        write_calibration,
    )

    layout = Layout(data_dir or default_data_dir())
    if reset:
        forgotten = forget_calibration(layout.data_dir)
        invocation.output.document({"forgotten": forgotten})
        invocation.output.line("Forgotten." if forgotten else "Nothing was measured.")
        return
    if show:
        kept = read_calibration(layout.data_dir, look(layout.data_dir))
        if kept is None:
            invocation.output.document(None)
            invocation.output.line("Nothing was measured of this machine: `headrace calibrate` does.")
            return
        invocation.output.line(f"Rates: {kept.source}.")
        _show(invocation, kept, layout)
        return
    steps = Steps(invocation.output, silent=invocation.as_json)
    with steps.step("Measuring") as step:
        found = measure(layout)
        step.result = str(write_calibration(layout.data_dir, found))
    _show(invocation, found, layout)


def _show(invocation: Invocation, found: Calibration, layout: Layout) -> None:
    from headrace.hardware import doubts, look  # noqa: PLC0415  # see above

    doubtful = doubts(found, look(layout.data_dir).cores)
    invocation.output.document(msgspec.to_builtins(found) | {"warnings": doubtful})
    rows = [_row("all cores", found.processor)]
    if found.accelerator:
        rows.append(_row("one GPU", found.accelerator))
    invocation.output.table(("", "READS", "COMPUTES"), rows, empty="")
    for sentence in doubtful:
        invocation.output.line(f"warning: {sentence}")
    if doubtful:
        invocation.output.line("Plans go by these rates. Measure again when the machine is idle, or `--reset`.")


def measure(layout: Layout) -> Calibration:
    """Run the program that measures, in an engine's environment: torch is nowhere else.

    Raises:
        CalibrationFailed: There is no such environment, or the program failed.
    """
    from headrace.hardware import Calibration, identity, look  # noqa: PLC0415  # see above
    from headrace.runtimes.surroundings import (  # noqa: PLC0415  # see above
        GPUS_VARIABLE,
        huge_pages,
        run_module,
        surroundings,
    )

    environment = _environment(layout)
    machine = look(layout.data_dir)
    argv = run_module(environment, "calibrate", "--threads", str(max(1, int(machine.cores))))
    env = surroundings(environment, GPUS_VARIABLE) | huge_pages()  # as the engines
    load = os.getloadavg()[0]
    try:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        answer = msgspec.json.decode(done.stdout, type=dict[str, msgspec.Raw])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as problem:
        said = str(getattr(problem, "stderr", "") or problem)
        raise CalibrationFailed(
            "The program that measures failed.",
            evidence="\n".join(said.splitlines()[-5:]),
            fix="Install the runtime again: `headrace runtimes remove transformers`, then `… install transformers`.",
        ) from problem
    kept = {"machine": identity(machine), "measured_at": time.time(), "load": load, **answer}
    return msgspec.json.decode(msgspec.json.encode(kept), type=Calibration)


def _environment(layout: Layout) -> Environment:
    from headrace.runtimes import Environments, find  # noqa: PLC0415  # see above

    environments = Environments(layout.runtimes_dir)
    for name in _WITH_TORCH:
        if found := environments.find(find(name)):
            return found
    raise CalibrationFailed(
        "Measuring takes torch, which is in no runtime's environment here.",
        evidence=f"Neither {' nor '.join(_WITH_TORCH)} is installed in {Path(layout.runtimes_dir)}.",
        fix="`headrace runtimes install transformers`, which takes 1.2 GB.",
    )


def _row(what: str, rates: Rates) -> tuple[str, str, str]:
    computes = ", ".join(f"{rate / 1e9:,.0f} GFLOPS in {name}" for name, rate in rates.flops_per_s.items())
    return what, f"{size(int(rates.bandwidth_bytes_per_s))}/s", computes
