"""The command: how much is asked of whom, for how long, and what comes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.endpoints import EndpointArgument
from headrace.cli.ends import ENDS, every_end_is_an_interrupt
from headrace.cli.exits import ExitCode, WrongUsage
from headrace.cli.invocation import Invocation
from headrace.cli.progress import Steps
from headrace.resources.profiles import Carried

if TYPE_CHECKING:
    from headrace.cli.certify.figures import Asked, Certificate
    from headrace.cli.certify.load import Lengths, Tenant
    from headrace.cli.certify.tenants import Target
    from headrace.cli.client import Client

SLICES_OF_FLOOD = 4
"""Chunks that the tenant which floods may have at most where it is made for that: a whole replica."""


def certify(
    invocation: Invocation,
    endpoint: EndpointArgument,
    *,
    minutes: Annotated[float, typer.Option(min=0.05, max=1440.0, help="For how long.")] = 5.0,
    load: Annotated[float, typer.Option(min=0.01, max=10.0, help="Of the guaranteed rate, how much is asked.")] = 0.95,
    rate: Annotated[float, typer.Option(min=0.0, metavar="TOKENS/S", help="Ask so much instead.")] = 0.0,
    slo_first: Annotated[float, typer.Option(min=0.0, help="Seconds to the first token; else the profile's.")] = 0.0,
    slo_gap: Annotated[float, typer.Option(min=0.0, help="Seconds between two tokens; else the profile's.")] = 0.0,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Lengths as in this CSV (ContextTokens, GeneratedTokens).")
    ] = None,
    flood: Annotated[str, typer.Option(metavar="ENDPOINT", help="Who floods; else one is made for that time.")] = "",
    no_flood: Annotated[bool, typer.Option("--no-flood", help="Nobody floods.")] = False,
    flood_times: Annotated[float, typer.Option(min=0.1, help="How many times what is not guaranteed it asks.")] = 10.0,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep it as a page, with plots.")] = None,
) -> None:
    """Ask at the guaranteed rate while another tenant floods the same engines, and say whether the promise is kept.

    Exit code 0 if it is, 1 if not. Requests count as usage. Ctrl-C ends it with what was seen until then.
    """
    from headrace.cli.certify.figures import document  # noqa: PLC0415  # with it come numbers' libraries
    from headrace.cli.certify.page import page  # noqa: PLC0415
    from headrace.cli.certify.tenants import look_up  # noqa: PLC0415  # brings the HTTP client

    if html is not None:
        _require_writable(html)
    steps = Steps(invocation.output, silent=invocation.as_json)
    with invocation.client() as client:
        target = look_up(client, endpoint)
        carried = _carried(target, slo_first=slo_first, slo_gap=slo_gap)
        tokens_per_s = rate or load * target.guaranteed_tokens_per_s
        if not tokens_per_s:
            raise WrongUsage(
                f"Nothing is guaranteed to endpoint {target.name}.",
                evidence="It was sold no throughput, or one whose least is zero.",
                fix="Say what to ask: --rate TOKENS_PER_SECOND.",
            )
        plan = _Plan(
            target,
            carried,
            tokens_per_s=tokens_per_s,
            seconds=60.0 * minutes,
            trace=trace,
            flood_times=0.0 if no_flood else flood_times,
        )
        with every_end_is_an_interrupt():
            certificate, asked = plan.run(client, steps, flood=flood)
    if html is not None:
        html.write_text(page(certificate, asked), encoding="utf-8")
    invocation.output.document(document(certificate))
    _show(invocation, certificate, html)
    if certificate.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not certificate.kept:
        raise typer.Exit(ExitCode.FAILED)


def _require_writable(html: Path) -> None:
    """Hold that the page can be kept, before hours were spent on what is in it.

    Raises:
        WrongUsage: It cannot.
    """
    if html.is_dir() or not os.access(html.parent, os.W_OK) or (html.exists() and not os.access(html, os.W_OK)):
        raise WrongUsage(
            f"--html {html} cannot be written.",
            evidence=f"{html} is a folder." if html.is_dir() else "Its folder is not there, or not to be written to.",
            fix="Name a file in a folder that is there.",
        )


def _carried(target: Target, *, slo_first: float, slo_gap: float) -> Carried:
    """What a replica carries, with the latencies that are promised.

    Raises:
        WrongUsage: Nobody knows, and the latencies were not given.
    """
    from msgspec.structs import replace  # noqa: PLC0415

    from headrace.resources.profiles import Cost  # noqa: PLC0415

    if target.carried is not None:
        return replace(
            target.carried, first_s=slo_first or target.carried.first_s, gap_s=slo_gap or target.carried.gap_s
        )
    if not slo_first or not slo_gap:
        raise WrongUsage(
            f"What a replica of deployment {target.deployment_id} carries, and how fast, is not known.",
            evidence="It was sold no throughput, so nobody asked.",
            fix="Give the latencies that are to be kept: --slo-first SECONDS --slo-gap SECONDS.",
        )
    by_tokens = Cost(prompt=1.0, prompt_squared=0.0, step=0.0, sequence=1.0, context=0.0)  # work is tokens then
    return Carried(cost=by_tokens, concurrency=1, first_s=slo_first, gap_s=slo_gap)


class _Plan:
    """What is to be done, and the doing of it."""

    def __init__(
        self,
        target: Target,
        carried: Carried,
        *,
        tokens_per_s: float,
        seconds: float,
        trace: Path | None,
        flood_times: float,
    ) -> None:
        from headrace.capacity.units import OUTPUT_TOKENS, PROMPT_TOKENS  # noqa: PLC0415
        from headrace.cli.certify.lengths import alike, of_trace  # noqa: PLC0415

        self._target = target
        self._carried = carried
        self._tokens_per_s = tokens_per_s
        self._seconds = seconds
        self._flood_times = flood_times
        context = target.max_model_len
        self._lengths: Lengths
        self._wake_s = 0.0
        self._lengths, self._mean = (
            of_trace(trace, context) if trace is not None else alike(PROMPT_TOKENS, OUTPUT_TOKENS, context)
        )

    def run(self, client: Client, steps: Steps, *, flood: str) -> tuple[Certificate, list[Asked]]:
        """Make what is needed, ask, and take off again what was made."""
        from headrace.cli.certify.leftovers import name_for, remove_leftovers  # noqa: PLC0415
        from headrace.cli.certify.tenants import flooding, other_key  # noqa: PLC0415

        with ExitStack() as made:
            tenants = [self._tenant(client, client.login.key, self._target.path, self._tokens_per_s, streams=True)]
            if self._flood_times:
                remove_leftovers(client, steps)
                sold, name = f"0x:{SLICES_OF_FLOOD}x", name_for(self._seconds)
                path = made.enter_context(
                    flooding(client, self._target, steps, endpoint=flood, throughput=sold, name=name)
                )
                key = made.enter_context(other_key(client, client.login.project, name))
                tenants.append(self._tenant(client, key, path, self._flood_tokens_per_s(), streams=False))
            at = time.time()
            what = f"Asking {self._tokens_per_s:,.0f} tokens/s of {self._target.name} for {self._seconds:.0f} s"
            with steps.step(what):
                seconds, own_cpu, interrupted = asyncio.run(self._drive(tenants))
        return self._certificate(at, tenants, seconds, own_cpu, interrupted=interrupted), tenants[0].asked

    def _tenant(self, client: Client, key: str, path: str, tokens_per_s: float, *, streams: bool) -> Tenant:
        from headrace.cli.certify.load import Tenant  # noqa: PLC0415

        seed = 1 if streams else 2
        return Tenant(
            client.login,
            key,
            path,
            rate=tokens_per_s / self._mean,
            lengths=self._lengths,
            streams=streams,
            seed=seed,
            context_tokens=self._target.max_model_len,
        )

    def _flood_tokens_per_s(self) -> float:
        """So many times what is guaranteed to nobody; where that is nothing, of what is asked by the other."""
        from headrace.capacity.units import tokens_per_s  # noqa: PLC0415

        whole = max(self._target.replicas, 1) * tokens_per_s(self._carried) if self._target.carried else 0.0
        sold = self._target.guaranteed_tokens_per_s + self._target.guaranteed_beside_tokens_per_s
        return self._flood_times * max(whole - sold, self._tokens_per_s)

    async def _drive(self, tenants: list[Tenant]) -> tuple[float, float, bool]:
        from headrace.cli.certify.load import drive  # noqa: PLC0415

        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in ENDS}
        for number in ENDS:
            loop.add_signal_handler(number, over.set)
        try:
            for tenant in tenants:
                took_s = await tenant.prepare()
                self._wake_s = took_s if self._target.slept and tenant is tenants[0] else self._wake_s
            seconds, own_cpu = await drive(tenants, self._seconds, over)
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
        return seconds, own_cpu, over.is_set()

    def _certificate(
        self, at: float, tenants: list[Tenant], seconds: float, own_cpu: float, *, interrupted: bool
    ) -> Certificate:
        from headrace.cli.certify.figures import Certificate, figures, work_error  # noqa: PLC0415

        first_s, gap_s = self._carried.first_s, self._carried.gap_s
        told = [
            figures(each.asked, seconds, self._carried, first_s=first_s, gap_s=gap_s, streamed=each.streams)
            for each in tenants
        ]
        asked = [one for each in tenants for one in each.asked]
        busy = len(tenants) > 1 and self._target.carried is not None and self._target.replicas > 0
        busy = busy and any(not one.code for one in asked)
        return Certificate(
            endpoint=self._target.name,
            at=at,
            seconds=seconds,
            rate_tokens_per_s=self._tokens_per_s,
            guaranteed_tokens_per_s=self._target.guaranteed_tokens_per_s,
            first_s=first_s,
            gap_s=gap_s,
            tenant=told[0],
            flood=told[1] if len(told) > 1 else None,
            work_error=work_error(asked, self._carried, seconds=seconds, replicas=self._target.replicas)
            if busy
            else None,
            own_cpu=own_cpu,
            wake_s=self._wake_s,
            interrupted=interrupted,
        )


def _show(invocation: Invocation, certificate: Certificate, html: Path | None) -> None:
    rows: list[tuple[Any, ...]] = []
    for name, seen in (("compliant", certificate.tenant), ("flooding", certificate.flood)):
        if seen is None:
            continue
        within = first = gap = "-"
        if seen.streamed:
            within = f"{seen.attainment:.1%}"
            first = " ".join(f"{value:.2f}" for value in (seen.first.p50, seen.first.p95, seen.first.p99))
            gap = " ".join(f"{1e3 * value:.0f}" for value in (seen.gap.p50, seen.gap.p95, seen.gap.p99))
        refused = ", ".join(f"{code} {many}" for code, many in sorted(seen.refusals.items()))
        rate = f"{seen.attained_tokens_per_s:,.0f} of {seen.offered_tokens_per_s:,.0f}"
        rows.append((name, f"{seen.answered} of {seen.asked}", rate, within, first, gap, refused))
    heads = ("TENANT", "ANSWERED", "TOKENS/S", "WITHIN", "FIRST TOKEN p50 p95 p99, s", "INTER-TOKEN, ms", "REFUSED")
    invocation.output.line()
    invocation.output.table(heads, rows, empty="")
    invocation.output.line()
    if certificate.work_error is not None:
        invocation.output.line(f"The answered work is {certificate.work_error:+.0%} of the time that the replicas had.")
    if certificate.wake_s:
        invocation.output.line(
            f"It slept: nothing is guaranteed, and the first answer took {certificate.wake_s:.1f} s."
        )
    invocation.output.line(f"The load itself took {certificate.own_cpu:.0%} of a core.")
    invocation.output.line(certificate.verdict)
    if html is not None:
        invocation.output.line(f"Kept as {html}.")
