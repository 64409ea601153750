"""``headrace plan``: whether a model fits a machine and how fast it would be, before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headrace.cli.addresses import SCHEMES, artifact_uri
from headrace.cli.exits import WorkFailed, WrongUsage
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command
from headrace.cli.serve import DataDirOption
from headrace.resources.errors import HeadraceError
from headrace.resources.layout import default_data_dir

if TYPE_CHECKING:
    from headrace.cli.planning import Answer, TierAnswer

_MOST = 2**40
"""More tokens, or sequences, than anybody can mean: `MOST_TOKENS` of `headrace.capacity.plan`, which imports slowly."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "plan", server=False, panel=LOOK)(plan)


def plan(
    invocation: Invocation,
    *,
    path: Annotated[
        str,
        typer.Argument(metavar="[PATH]", help=f"A folder (a config.json is enough), or {SCHEMES}", show_default=False),
    ] = "",
    machine: Annotated[
        str,
        typer.Option(
            metavar="SHAPE", help="TYPE, TYPE:COUNT, TYPE:ACCELERATOR:COUNT or this-machine; else the cheapest."
        ),
    ] = "",
    context: Annotated[
        int | None, typer.Option(min=1, max=_MOST, metavar="N", help="Longest sequence, in tokens.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=_MOST, metavar="N", help="Such sequences at once; else 8.")
    ] = None,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"], typer.Option(help="Number format; auto is the stored one.")
    ] = "auto",
    tensor_parallel: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Devices that share the model; else the fewest that it fits.")
    ] = None,
    runtime: Annotated[str, typer.Option(metavar="R", help="Such as vllm; else the one that would be chosen.")] = "",
    shapes: Annotated[bool, typer.Option("--shapes", help="List the machine shapes instead.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Whether a model fits a machine, and how fast it would be; needs no server."""
    from headrace.cli import plan_report, planning  # noqa: PLC0415  # `headrace version` starts without them

    known = planning.Machines(data_dir or default_data_dir())
    if shapes:
        plan_report.show_shapes(invocation.output, known.shapes)
        return
    if not path:
        raise WrongUsage(
            "There is nothing to plan.",
            evidence="Neither a folder nor --shapes is given.",
            fix="headrace plan FOLDER, or headrace plan --shapes.",
        )
    wish = planning.Wish(
        machine=machine,
        context_tokens=context,
        concurrency=concurrency,
        dtype=dtype,
        tensor_parallel=tensor_parallel,
        runtime=runtime,
    )
    folder = planning.read_model(artifact_uri(path, "plan"))
    if tier := known.tier(machine):
        sized = planning.plan_tier(folder, wish, tier, known.tiers)
        plan_report.show_tier(invocation.output, sized)
        _require_deployable(sized)
        return
    answer = planning.plan_model(folder, wish, known)
    plan_report.show(invocation.output, answer)
    _require_deployable(answer)


def _require_deployable(answer: Answer | TierAnswer) -> None:
    """End as the deployment would.

    Raises:
        WorkFailed: It would be refused.
    """
    from headrace.cli import planning  # noqa: PLC0415  # see above

    try:
        planning.require_deployable(answer)
    except HeadraceError as error:
        raise WorkFailed(error.failure) from error
