"""``headrace simulate``: what a deployment would do under a load, before it is bought."""

from __future__ import annotations

import csv
import gzip
import math
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.exits import WrongUsage
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command
from headrace.cli.paths import segment
from headrace.resources.autoscaling import Metric, read_target

if TYPE_CHECKING:
    from headrace.capacity.simulation import Outcome, Scale, Tenant
    from headrace.resources.profiles import Carried

MOST_REQUESTS = 10_000_000
"""Of one run: all are remembered for the latencies' percentiles, and take some ten minutes."""

_COLUMNS = ("ContextTokens", "GeneratedTokens")


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "simulate", panel=LOOK)(simulate)


def simulate(
    invocation: Invocation,
    *,
    profile: Annotated[str, typer.Option(metavar="ID", help="What a replica carries, as it was measured.")] = "",
    cost: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same from a file of JSON, without a server.")
    ] = None,
    tenants: Annotated[int, typer.Option(min=1, max=10_000, help="How many ask, all alike.")] = 1,
    rate: Annotated[float, typer.Option(min=0.0, metavar="TOKENS/S", help="What each asks, on average.")] = 0.0,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Requests of a CSV (TIMESTAMP, ContextTokens, …), of one tenant."),
    ] = None,
    speed_up: Annotated[float, typer.Option(min=0.001, help="How many times as fast the trace is played.")] = 1.0,
    guaranteed: Annotated[float, typer.Option(min=0.0, metavar="TOKENS/S", help="Sold to each, at least.")] = 0.0,
    most: Annotated[float, typer.Option(min=0.0, metavar="TOKENS/S", help="Sold to each, at most; 0: no end.")] = 0.0,
    flood: Annotated[float, typer.Option(min=0.0, help="One more, who asks so many times what nobody was sold.")] = 0.0,
    replicas: Annotated[int, typer.Option(min=1, max=100_000, help="How many there are, at least.")] = 1,
    max_replicas: Annotated[int, typer.Option(min=0, max=100_000, help="At most; 0: always as many.")] = 0,
    target: Annotated[str, typer.Option(metavar="METRIC=VALUE", help="What the autoscaler goes by.")] = "",
    start: Annotated[float, typer.Option(min=0.0, help="Seconds until a new replica is ready.")] = 10.0,
    step_tokens: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Of prompts and answers, in one step of an engine.")
    ] = 192,
    minutes: Annotated[float, typer.Option(min=0.01, max=100_000.0, help="For how long they ask.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of what comes by chance.")] = 1,
) -> None:
    """Tell latencies, refusals and replica-hours of a load that nobody has to send, by the fitted cost of requests."""
    from msgspec.structs import replace  # noqa: PLC0415

    from headrace.capacity import simulation  # noqa: PLC0415  # numbers, not needed for --help
    from headrace.capacity.units import share, tokens_per_s  # noqa: PLC0415

    _require_ends(rate=rate, speed_up=speed_up, guaranteed=guaranteed, most=most, flood=flood, start=start)
    carried = _carried(invocation, profile, cost)
    scale = replace(_scale(replicas, max_replicas or replicas, target, start), step_tokens=step_tokens)
    if (trace is None) == (not rate):
        raise WrongUsage(
            "Nothing says what is asked.", evidence="Neither or both of --rate and --trace were given.", fix="Give one."
        )
    asked = (
        [_alike(f"tenant {number}", rate) for number in range(1, tenants + 1)]
        if trace is None
        else [simulation.Tenant(name=trace.name, arrivals=read_trace(trace, speed_up))]
    )
    asked = [replace(one, guaranteed=share(carried, guaranteed), most=share(carried, most)) for one in asked]
    if flood:
        rest = max(scale.least * tokens_per_s(carried) - guaranteed * tenants, 0.0)
        asked.append(_alike("flood", flood * rest))
    _require_few(asked, minutes)
    began = time.perf_counter()
    outcome = simulation.simulate(asked, carried, scale, seconds=60.0 * minutes, seed=seed)
    _show(invocation, outcome, time.perf_counter() - began)


def _require_ends(**numbers: float) -> None:
    """Hold that each of these options is a number.

    Raises:
        WrongUsage: One is infinite.
    """
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise WrongUsage(
                f"--{name.replace('_', '-')} has no end.",
                evidence=f"It is {number}.",
                fix="Give a number that has one.",
            )


def _require_few(asked: Sequence[Tenant], minutes: float) -> None:
    """Hold that a run has an end that somebody waits for, and fits into memory.

    Raises:
        WrongUsage: It has not.
    """
    requests = sum(len(one.arrivals) or 60.0 * minutes * one.requests_per_s for one in asked)
    if requests > MOST_REQUESTS:
        raise WrongUsage(
            "That is more than one run simulates.",
            evidence=f"It has about {requests:.3g} requests; {MOST_REQUESTS:,} are allowed.",
            fix="Ask less (--rate, --tenants, --flood), or for a shorter time: --minutes.",
        )


def read_trace(path: Path, speed_up: float) -> tuple[tuple[float, int, int], ...]:
    """Requests of a file: seconds since the first, tokens of prompt and answer.

    Raises:
        WrongUsage: It is no such file.
    """
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        # Seven digits of a second are one more than Python reads.
        times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
        prompts, outputs = ([_tokens(row[name]) for row in rows] for name in _COLUMNS)
    except (OSError, EOFError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise WrongUsage(
            f"--trace {path} is no file of requests.",
            evidence=f"{type(error).__name__}: {error}",
            fix=f"Give a file of CSV with TIMESTAMP and {' and '.join(_COLUMNS)}, in tokens.",
        ) from None
    first = min(times, default=0.0)
    played = zip(times, prompts, outputs, strict=True)
    return tuple(sorted(((at - first) / speed_up, prompt, output) for at, prompt, output in played))


def _tokens(text: str) -> int:
    """A length: what has none is played as one token, as real traces have such requests."""
    tokens = int(text)
    if tokens < 0:
        raise ValueError(f"{tokens} tokens")
    return max(tokens, 1)


def _carried(invocation: Invocation, profile: str, cost: Path | None) -> Carried:
    """What a replica carries.

    Raises:
        WrongUsage: Nothing or too much says so, the file is none, its cost is negative, or it keeps its latencies with
            no sequence at all.
    """
    import msgspec  # noqa: PLC0415

    from headrace.capacity.units import tokens_per_s  # noqa: PLC0415
    from headrace.resources.profiles import Carried  # noqa: PLC0415

    if bool(profile) == (cost is not None):
        raise WrongUsage(
            "Nothing says what a replica carries.",
            evidence="Neither or both of --profile and --cost were given.",
            fix="`headrace profiles` lists what was measured; --cost FILE takes the same as JSON.",
        )
    if cost is None:
        with invocation.client() as client:
            found = client.get(f"{ROOT}/profiles/{segment(profile)}", **in_scope(client))
        carried = msgspec.convert(found["carried"], Carried)
    else:
        try:
            carried = msgspec.json.decode(cost.read_bytes(), type=Carried)
        except (OSError, msgspec.DecodeError) as error:
            raise WrongUsage(
                f"--cost {cost} does not say what a replica carries.",
                evidence=f"{type(error).__name__}: {error}",
                fix="Give `carried` of a profile: headrace profiles --json.",
            ) from None
    if min(msgspec.structs.astuple(carried.cost)) < 0.0:
        raise WrongUsage(
            "No request costs less than nothing.", evidence=f"It is {carried.cost}.", fix="Give coefficients from 0 on."
        )
    if carried.concurrency < 1 or carried.units(1, 1) <= 0.0 or tokens_per_s(carried) <= 0.0:
        raise WrongUsage(
            "Such a replica carries nothing.",
            evidence=f"Its concurrency is {carried.concurrency}, and a request costs {carried.units(1, 1)} s.",
            fix="Give one that keeps its latencies with a sequence at least.",
        )
    return carried


def _scale(least: int, most: int, target: str, start_s: float) -> Scale:
    from headrace.capacity.simulation import Scale  # noqa: PLC0415

    if most < least:
        raise WrongUsage(
            "There cannot be fewer replicas at most than at least.",
            evidence=f"--replicas {least} --max-replicas {most}.",
            fix="Leave --max-replicas out to have always as many.",
        )
    if most == least:
        return Scale(least=least, most=most, start_s=start_s)
    name, _, value = target.partition("=")
    known = {str(each): each for each in (Metric.CONCURRENCY, Metric.REQUESTS, Metric.WAITING, Metric.WORK)}
    if not value.isdecimal():
        raise WrongUsage(
            "Nothing says what the autoscaler goes by.",
            evidence=f"--target is {target!r}.",
            fix=f"Give METRIC=VALUE for one replica; simulated are {', '.join(known)}.",
        )
    found = read_target(name, int(value), known=known)
    return Scale(least=least, most=most, metric=found.metric, target=found.target, start_s=start_s)


def _alike(name: str, tokens_per_s: float) -> Tenant:
    """One that asks requests of the mix that throughput is stated for."""
    from headrace.capacity.simulation import Tenant  # noqa: PLC0415
    from headrace.capacity.units import OUTPUT_TOKENS, PROMPT_TOKENS  # noqa: PLC0415

    each = PROMPT_TOKENS + OUTPUT_TOKENS
    return Tenant(name=name, requests_per_s=tokens_per_s / each, lengths=((PROMPT_TOKENS, OUTPUT_TOKENS),))


def _show(invocation: Invocation, outcome: Outcome, took_s: float) -> None:
    import msgspec  # noqa: PLC0415

    asked = sum(one.asked for one in outcome.tenants)
    each_us = 1e6 * took_s / asked if asked else 0.0
    document: dict[str, Any] = msgspec.to_builtins(outcome)
    invocation.output.document(document | {"microseconds_per_request": each_us})
    heads = ("TENANT", "ASKED", "REFUSED", "WITHIN", "FIRST TOKEN p50 p95 p99, s", "INTER-TOKEN p99, ms", "UNITS/S")
    invocation.output.table(
        heads,
        [
            (
                one.name,
                one.asked,
                one.refused,
                f"{one.attainment:.2%}",
                f"{one.first_p50_s:.2f} {one.first_p95_s:.2f} {one.first_p99_s:.2f}",
                f"{1e3 * one.gap_p99_s:.0f}",
                f"{one.work_per_s:.2f}",
            )
            for one in sorted(outcome.tenants, key=lambda one: one.attainment)[:20]
        ],
        empty="Nobody asked.",
    )
    hidden = len(outcome.tenants) - 20
    if hidden > 0:
        invocation.output.line(f"… and {hidden} tenants that fared better.")
    invocation.output.line()
    hours = f"{outcome.replica_hours:.2f} replica-hours, computing for {outcome.utilisation:.0%} of them"
    invocation.output.line(f"{hours}; {outcome.most_replicas} replicas at most, {outcome.changes} changes.")
    if outcome.unfinished:
        invocation.output.line(f"{outcome.unfinished} requests were not done ten minutes after the last one was asked.")
    if asked and math.isfinite(each_us):
        invocation.output.line(f"{asked:,} requests simulated at {each_us:.0f} µs each.")
