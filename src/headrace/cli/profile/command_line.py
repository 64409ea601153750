"""The command: which lengths, how many at a time, and what they come to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.capacity.units import FIRST_S, GAP_S
from headrace.cli.deployments import ROOT
from headrace.cli.exits import WrongUsage
from headrace.cli.invocation import Invocation
from headrace.cli.output import duration
from headrace.cli.profile.target import Machine, Target, target
from headrace.cli.progress import Steps
from headrace.resources.errors import EngineTimeout, HeadraceError, ProfileTooSmall
from headrace.resources.profiles import Combination, Grid

if TYPE_CHECKING:
    from headrace.capacity.measuring import Meter
    from headrace.cli.client import Client
    from headrace.resources.profiles import Point

_AT, _BETWEEN = "1,4,16", (2, 8)
"""What is asked at a time where nobody says; the latter of the longest alone, as a node measures it by itself."""

_MACHINE = "Which machine (of MODEL@VERSION: none; all three; or a type that has no accelerators)"


def profile(
    invocation: Invocation,
    *,
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="ENDPOINT|MODEL@VERSION",
            help="What runs already; or a version, which is deployed for the measurement and then taken off again.",
        ),
    ],
    prompts: Annotated[str, typer.Option(metavar="N,N,…", help="Lengths of prompts, in tokens.")] = "32,256,768",
    outputs: Annotated[str, typer.Option(metavar="N,N,…", help="Lengths of answers, in tokens.")] = "16,64",
    at: Annotated[
        str,
        typer.Option(metavar="N,N,…", help="How many requests at a time; else 1,4,16, of the longest also 2 and 8."),
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each of them is looked at, at least.")] = 3.0,
    first_token: Annotated[
        float, typer.Option(min=0.001, help="Seconds to the first token that 99 of 100 requests keep.")
    ] = FIRST_S,
    inter_token: Annotated[
        float, typer.Option(min=0.001, help="Seconds between two tokens, on average, that 99 of 100 keep.")
    ] = GAP_S,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Store it: what is sold of the version goes by it then.")
    ] = True,
    machine_type: Annotated[
        str, typer.Option(help="Machine's type, as Vertex AI names it.", rich_help_panel=_MACHINE)
    ] = "",
    accelerator_type: Annotated[
        str, typer.Option(help="GPU's type, as Vertex AI names it.", rich_help_panel=_MACHINE)
    ] = "",
    accelerator_count: Annotated[int, typer.Option(min=0, help="GPUs of a machine.", rich_help_panel=_MACHINE)] = 0,
) -> None:
    """Measure what one replica carries, and what a request costs it; leave it to itself meanwhile.

    The endpoint's deployed model must have one replica. Requests go to it as anybody's do, and count as usage.
    """
    from headrace.capacity.cost import measured  # noqa: PLC0415  # brings numpy
    from headrace.cli.profile.report import show  # noqa: PLC0415

    asked = ((prompts, "prompts"), (outputs, "outputs"), (at or _AT, "at"))
    lengths = [_numbers(each, name) for each, name in asked]
    for name, numbers in zip(("--prompts", "--outputs", "--at"), lengths, strict=True):
        if len(numbers) < 2:
            raise ProfileTooSmall(
                "A replica's cost cannot be told from so little.",
                evidence=f"{name} has one number.",
                fix="Give at least two; three are better, for a third of what is measured tests the fit.",
            )
    steps = Steps(invocation.output, silent=invocation.as_json)
    machine = Machine(machine_type, accelerator_type, accelerator_count)
    with invocation.client() as client, target(client, wanted, machine, steps) as chosen:
        grid = Grid(prompts=lengths[0], outputs=lengths[1], concurrency=lengths[2], between=() if at else _BETWEEN)
        points, left_out = asyncio.run(_measure(client, chosen, grid, steps, seconds=seconds))
        try:
            fitted, carried = measured(points, first_s=first_token, gap_s=inter_token)
        except ProfileTooSmall as error:
            raise (_too_slow(left_out) if left_out else error) from None
        kept, refused = None, None
        if keep:
            limits = {"first_s": first_token, "gap_s": inter_token}
            try:
                kept = _keep(client, chosen, points, limits)
            except HeadraceError as error:  # what was measured is told all the same
                refused = error
        show(invocation.output, points, fitted, carried, kept=kept, left_out=left_out)
    if refused is not None:
        raise refused


def _keep(client: Client, chosen: Target, points: list[Point], limits: dict[str, float]) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    where = {"deployment": chosen.deployment, "project": client.login.project, "location": client.login.location}
    kept = client.post(f"{ROOT}/profiles", {**where, **limits, "points": msgspec.to_builtins(points)})
    assert isinstance(kept, dict)
    return kept


def _numbers(text: str, name: str) -> tuple[int, ...]:
    """Numbers with commas between them.

    Raises:
        WrongUsage: They are none, or not above zero.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= 10**7 for part in parts):
        raise WrongUsage(
            f"--{name} takes whole numbers above zero, with commas between them.",
            evidence=f"It was {text!r}.",
            fix=f"Write --{name} 16,64.",
        )
    return tuple(sorted({int(part) for part in parts}))


async def _measure(
    client: Client, chosen: Target, grid: Grid, steps: Steps, *, seconds: float
) -> tuple[list[Point], list[Combination]]:
    from headrace.capacity.measuring import Meter  # noqa: PLC0415
    from headrace.cli.profile.load import ThroughGateway  # noqa: PLC0415  # brings the HTTP client

    async with ThroughGateway(client.login, chosen.path) as engine:
        meter = Meter(engine, chosen.model, chosen.context_tokens)
        await meter.prepare()
        return await measure_all(meter, grid.combinations_in(chosen.context_tokens), steps, seconds=seconds)


async def measure_all(
    meter: Meter, wanted: Sequence[Combination], steps: Steps, *, seconds: float
) -> tuple[list[Point], list[Combination]]:
    """Every combination, and those that were left out: too slow to be whole in time, or no faster than one that was."""
    from headrace.capacity.measuring import LONGEST_S, TooSlow  # noqa: PLC0415

    points: list[Point] = []
    left_out: list[Combination] = []
    for at, prompt, output in wanted:
        if any(slow[0] <= at and slow[1] <= prompt and slow[2] <= output for slow in left_out):
            left_out.append((at, prompt, output))
            continue
        with steps.step(f"{prompt} tokens read, {output} written, {at} at a time") as step:
            try:
                point = await meter.measure(prompt, output, at, seconds=seconds)
            except TooSlow:
                left_out.append((at, prompt, output))
                step.result = f"left out, for not all were whole after {LONGEST_S:.0f} s"
                continue
            rate = (point.prompt_tokens + point.output_tokens) / point.request_s
            step.result = f"{rate:,.0f} tokens/s, first token {duration(point.first_s)}"
        points.append(point)
    return points, left_out


def _too_slow(left_out: Sequence[Combination]) -> EngineTimeout:
    at, prompt, output = left_out[0]
    return EngineTimeout(
        "So few requests were whole in time that a replica's cost cannot be told.",
        evidence=f"The first of {len(left_out)} left out: {prompt} tokens read, {output} written, {at} at a time.",
        fix="Ask for shorter ones, or fewer at a time (--prompts, --outputs, --at), and leave the machine alone.",
    )
