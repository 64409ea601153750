"""``headrace rollouts``: a new model gets an endpoint's traffic in stages, and gives it back if it is worse."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import EndpointArgument, find_endpoint, short_id
from headrace.cli.exits import WorkFailed, failure_in, text_of
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.output import age, duration
from headrace.cli.paths import segment
from headrace.cli.progress import Steps
from headrace.resources.errors import Cancelled, Failure, RolloutNotFound
from headrace.resources.rollouts import Measure, RolloutBounds, RolloutPlan
from headrace.resources.states import OPEN_ROLLOUT, RolloutState

if TYPE_CHECKING:
    from headrace.cli.client import Client

_LOOK_EVERY_S = 0.5
_PLAN, _BOUNDS = RolloutPlan(), RolloutBounds()
_BOUNDS_PANEL = "When it goes back"
_NAMES = {Measure.ERRORS: "errors", Measure.FIRST_TOKEN: "first token", Measure.INTER_TOKEN: "between tokens"}


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="A new model's way to an endpoint's traffic, in stages, or back.")
    list_command(group)(list_rollouts)
    command(group, "start")(start_rollout)
    command(group, "get")(get_rollout)
    command(group, "pause")(pause_rollout)
    command(group, "resume")(resume_rollout)
    command(group, "promote")(promote_rollout)
    command(group, "abort")(abort_rollout)
    app.add_typer(group, name="rollouts", rich_help_panel=MANAGE)


def list_rollouts(invocation: Invocation) -> None:
    """All rollouts of the project, the oldest first."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/rollouts", **in_scope(client))
    invocation.output.document(found)
    now = time.time()
    rows = [
        (
            each["id"],
            each["endpoint_id"],
            each["deployed_model_id"],
            each["state"],
            f"{each['percent']} %",
            age(now - each["created_at"]),
            (each.get("failure") or {}).get("code", ""),
        )
        for each in found["rollouts"]
    ]
    columns = ("ROLLOUT", "ENDPOINT", "CANARY", "STATE", "TRAFFIC", "AGE", "ERROR")
    empty = "No rollouts. Begin one: headrace rollouts start ENDPOINT"
    invocation.output.table(columns, rows, empty=empty, spare=("ROLLOUT",))


def start_rollout(
    invocation: Invocation,
    *,
    endpoint: EndpointArgument,
    model: Annotated[
        str, typer.Option(metavar="ID", help="Deployed model; else the newest on it that has no traffic.")
    ] = "",
    stages: Annotated[str, typer.Option(help="Percent of the requests, growing.")] = ",".join(map(str, _PLAN.stages)),
    min_requests: Annotated[int, typer.Option(min=1, help="Requests to it that a stage needs.")] = _PLAN.min_requests,
    min_seconds: Annotated[float, typer.Option(min=0.0, help="Seconds that a stage needs.")] = _PLAN.min_seconds,
    max_error_rate: Annotated[
        float, typer.Option(help="Share of requests that may fail.", rich_help_panel=_BOUNDS_PANEL)
    ] = _BOUNDS.error_rate,
    max_first_token: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="A first token is slow from here.", rich_help_panel=_BOUNDS_PANEL),
    ] = None,
    max_inter_token: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="A stream's mean gap is slow from here.", rich_help_panel=_BOUNDS_PANEL),
    ] = None,
    slow_share: Annotated[
        float, typer.Option(help="Share of streams that may be slow by these.", rich_help_panel=_BOUNDS_PANEL)
    ] = _BOUNDS.slow_share,
    times_stable: Annotated[
        float,
        typer.Option(
            help="Without them: how many times what the old model takes, at the median.", rich_help_panel=_BOUNDS_PANEL
        ),
    ] = _BOUNDS.times_stable,
    false_alarms: Annotated[
        float, typer.Option(help="Probability that a good one goes back.", rich_help_panel=_BOUNDS_PANEL)
    ] = _PLAN.false_alarms,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show what happens until it has ended.")] = False,
) -> None:
    """Give a new model the endpoint's traffic in stages; it goes back by itself if requests fail or are slow."""
    body: dict[str, Any] = {
        "deployed_model_id": model,
        "stages": _percents(stages),
        "min_requests": min_requests,
        "min_seconds": min_seconds,
        "bounds": {
            "error_rate": max_error_rate,
            "first_token_s": max_first_token,
            "inter_token_s": max_inter_token,
            "slow_share": slow_share,
            "times_stable": times_stable,
        },
        "false_alarms": false_alarms,
    }
    with invocation.client() as client:
        target = short_id(find_endpoint(client, endpoint)["name"])
        rollout = client.post(f"{ROOT}/rollouts", {"endpoint_id": target, **body, **in_scope(client)})
        if wait:
            rollout = _watch(invocation, client, rollout)
    invocation.output.document(rollout)
    if not wait:
        share, canary = rollout["percent"], rollout["deployed_model_id"]
        invocation.output.line(f"{share} % of the requests go to deployed model {canary} from now on.")
        invocation.output.line(f"Watch it: headrace rollouts get {target}")


def get_rollout(invocation: Invocation, endpoint: EndpointArgument) -> None:
    """The endpoint's newest rollout: what it has seen, what it waits for, its timeline."""
    with invocation.client() as client:
        found = _fetch(client, _newest(client, endpoint)["id"])
    invocation.output.document(found)
    invocation.output.table(
        ("", ""),
        [
            ("rollout", found["id"]),
            ("canary", f"{found['deployed_model_id']}  {found['percent']} %"),
            ("stages", ", ".join(f"{stage} %" for stage in found["plan"]["stages"])),
            ("state", f"{found['state']}  {found['waits_for']}".rstrip()),
        ],
        empty="",
    )
    invocation.output.line()
    columns = ("THIS STAGE", "CANARY", "STABLE", "OUT OF LIMIT", "ALLOWED", "LIMIT", "EVIDENCE", "OF")
    invocation.output.table(columns, [_row(each) for each in found["measures"]], empty="", spare=("LIMIT",))
    invocation.output.line()
    began = found["timeline"][0]["at"]
    moves = [(f"+{move['at'] - began:.1f} s", move["state"], move["detail"]) for move in found["timeline"]]
    invocation.output.table(("AT", "STATE", ""), moves, empty="")
    if found.get("failure"):
        invocation.output.line(text_of(failure_in(found["failure"])))


def pause_rollout(invocation: Invocation, endpoint: EndpointArgument) -> None:
    """Stay in the stage it is in; a canary out of its bounds goes back all the same."""
    _change(invocation, endpoint, RolloutState.PAUSED)


def resume_rollout(invocation: Invocation, endpoint: EndpointArgument) -> None:
    """Go on after a pause."""
    _change(invocation, endpoint, RolloutState.RUNNING)


def promote_rollout(invocation: Invocation, endpoint: EndpointArgument) -> None:
    """Give the canary all of the traffic now, whatever the stages are."""
    _change(invocation, endpoint, RolloutState.PROMOTED)


def abort_rollout(invocation: Invocation, endpoint: EndpointArgument) -> None:
    """Have the traffic as it was before, now."""
    _change(invocation, endpoint, RolloutState.ROLLED_BACK)


def _change(invocation: Invocation, endpoint: str, state: RolloutState) -> None:
    with invocation.client() as client:
        rollout_id = segment(_newest(client, endpoint)["id"])
        changed = client.patch(f"{ROOT}/rollouts/{rollout_id}", {"state": state}, **in_scope(client))
    invocation.output.document(changed)
    invocation.output.line(f"Rollout {changed['id']} is {changed['state']}; the canary has {changed['percent']} %.")


def _newest(client: Client, endpoint: str) -> dict[str, Any]:
    """The endpoint's newest rollout.

    Raises:
        RolloutNotFound: It never had one.
    """
    target = short_id(find_endpoint(client, endpoint)["name"])
    found = client.get(f"{ROOT}/rollouts", endpoint=target, **in_scope(client))["rollouts"]
    if not found:
        raise RolloutNotFound(
            f"Endpoint {target} never had a rollout.", fix=f"Begin one: `headrace rollouts start {target}`."
        )
    newest: dict[str, Any] = found[-1]
    return newest


def _fetch(client: Client, rollout_id: str) -> dict[str, Any]:
    found = client.get(f"{ROOT}/rollouts/{segment(rollout_id)}", **in_scope(client))
    assert isinstance(found, dict)
    return found


def _watch(invocation: Invocation, client: Client, rollout: dict[str, Any]) -> dict[str, Any]:
    """Show the timeline as it grows, until the rollout has ended.

    Raises:
        WorkFailed: It was rolled back, whoever did that.
    """
    steps, shown = Steps(invocation.output, silent=invocation.as_json), 0
    try:
        with steps.step("Rolling out") as step:
            while True:
                rollout = _fetch(client, rollout["id"])
                for move in rollout["timeline"][shown:]:
                    if move["detail"]:
                        steps.say(f"{move['state']}  {move['detail']}")
                shown = len(rollout["timeline"])
                step.progress(f"{rollout['percent']} %  {rollout['waits_for']}".rstrip())
                if rollout["state"] not in OPEN_ROLLOUT:
                    break
                time.sleep(_LOOK_EVERY_S)
            step.result = rollout["state"]
    except KeyboardInterrupt:  # it is the watching that ends
        invocation.output.line(f"The rollout goes on. Watch it: headrace rollouts get {rollout['endpoint_id']}")
        raise
    if rollout["state"] == RolloutState.ROLLED_BACK:
        raise WorkFailed(failure_in(rollout["failure"]) if rollout.get("failure") else _by_hand(rollout))
    return rollout


def _by_hand(rollout: dict[str, Any]) -> Failure:
    return Cancelled("The rollout was ended by hand.", evidence=rollout["timeline"][-1]["detail"]).failure


def _row(measure: dict[str, Any]) -> tuple[str, ...]:
    name = _NAMES.get(measure["measure"], measure["measure"])
    return (
        name,
        *(_side(measure["measure"], measure[side]) for side in ("canary", "stable")),
        f"{measure['bad']} of {measure['trials']}",
        f"{100 * measure['bound']:g} %",
        measure["limit"],
        f"{measure['evidence']:.3g}",
        f"{measure['threshold']:,.0f}",
    )


def _side(measure: str, seen: dict[str, Any]) -> str:
    if seen["mean"] is None:
        return "none seen"
    mean = _percent(seen["mean"]) if measure == Measure.ERRORS else duration(seen["mean"])
    return f"{mean} of {seen['count']:,}"


def _percent(share: float) -> str:
    """A share with two digits, a whole number from 10 % on.

    >>> [_percent(share) for share in (1.0, 0.996, 0.25, 1 / 90, 0.0)]
    ['100 %', '100 %', '25 %', '1.1 %', '0 %']
    """
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def _percents(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--stages takes whole percents like 5,25,50,100, not {text[:80]!r}.") from error
