"""The command: which faults, under which load, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from headrace.cli.drill.names import FaultName
from headrace.cli.endpoints import EndpointArgument, YesOption, confirm, find_endpoint, short_id
from headrace.cli.exits import ExitCode
from headrace.cli.invocation import Invocation
from headrace.cli.output import duration
from headrace.cli.progress import Steps
from headrace.cli.serve import DataDirOption
from headrace.resources.layout import Layout, default_data_dir

if TYPE_CHECKING:
    from headrace.cli.drill.report import Result, Tally

QUESTION = "Count from one upwards, in words."


def drill(
    invocation: Invocation,
    *,
    endpoint: EndpointArgument,
    only: Annotated[
        list[FaultName] | None, typer.Option("--only", help="A fault to run; may be repeated. Else all of them.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long requests go on for each fault, at least.")] = 10.0,
    rate: Annotated[float, typer.Option(min=0.2, max=100.0, help="Requests a second; half of them streams.")] = 4.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer to each, in tokens.")] = 32,
    deadline: Annotated[float, typer.Option(min=1.0, help="Seconds after which an answer hangs, and is lost.")] = 60.0,
    data_dir: DataDirOption = None,
    yes: YesOption = False,
) -> None:
    """Have faults happen to a deployment under steady load, and count what is lost.

    Processes are killed only where the server is on this machine. Afterwards all is as it was: replicas, traffic,
    deployed models; so too after Ctrl-C.
    """
    from headrace.cli.drill.faults import FAULTS, Scene  # noqa: PLC0415  # these bring the HTTP client
    from headrace.cli.drill.load import Requester  # noqa: PLC0415
    from headrace.cli.drill.processes import find  # noqa: PLC0415
    from headrace.cli.drill.sequence import Drill  # noqa: PLC0415
    from headrace.cli.drill.target import Target  # noqa: PLC0415

    names = [name for name in FAULTS if not only or name in only]
    with invocation.client() as client:
        target = Target(client, find_endpoint(client, endpoint))
        confirm(invocation, f"Drill endpoint {short_id(target.name)}: {', '.join(names)}?", yes=yes)
        path, body = f"/v1/{target.name}/chat/completions", _request(endpoint, max_tokens)
        client.post(path, body, slow=True)  # what keeps it from answering at all is told in its own words
        processes, elsewhere = find(client.login.url, Layout(data_dir or default_data_dir()))
        steps = Steps(invocation.output, silent=invocation.as_json)
        requester = Requester(client.login, path, body, deadline_s=deadline)
        try:
            scene = Scene(target=target, processes=processes, elsewhere=elsewhere)
            course = Drill(scene, requester, steps, seconds=seconds, rate_per_s=rate)
            usual = course.without_fault()
            results = course.run(names)
        finally:
            requester.close()
    _show(invocation, target.name, usual, results)


def _request(endpoint: str, max_tokens: int) -> dict[str, Any]:
    message = {"role": "user", "content": QUESTION}
    return {"model": endpoint, "messages": [message], "max_tokens": max_tokens, "temperature": 0}


def _show(invocation: Invocation, endpoint: str, usual: Tally, results: list[Result]) -> None:
    """Each fault and all of them; and the exit code: 1 if anything was lost, did not end, or nothing was run.

    Raises:
        typer.Exit: With that code.
    """
    from headrace.cli.drill.report import total  # noqa: PLC0415  # see above

    run = [each for each in results if not each.not_run]
    everything = total([each.tally for each in run])
    faults = [msgspec.to_builtins(each) for each in results]
    document = {"endpoint": endpoint, "without_fault": usual, "faults": faults, "total": everything}
    invocation.output.document(document)
    rows = [
        (
            each.fault,
            each.tally.requests,
            each.tally.streams,
            each.tally.lost,
            *(
                duration(figure)
                for figure in (each.tally.added_p50_s, each.tally.added_p99_s, each.tally.worst_added_s)
            ),
        )
        for each in run
    ]
    columns = ("FAULT", "REQUESTS", "STREAMS", "LOST", "ADDED P50", "ADDED P99", "ADDED AT WORST")
    invocation.output.line()
    invocation.output.table(columns, rows, empty="No fault was run.")
    for each in results:
        for sentence in _told(each):
            invocation.output.line(sentence)
    invocation.output.line(f"\n{everything.sentence()}")
    if not run or usual.lost or everything.lost or any(each.failed for each in results):
        raise typer.Exit(ExitCode.FAILED)


def _told(result: Result) -> list[str]:
    """What there is to say of a fault beside its numbers."""
    told = [f"{result.fault}: {result.done}."] if result.done else []
    told += [f"{result.fault} was not run: {result.not_run}."] if result.not_run else []
    told += [f"{result.fault} did not come to its end: {result.failed}."] if result.failed else []
    return told + [f"{result.fault} lost {times}: {reason}" for reason, times in result.tally.reasons]
