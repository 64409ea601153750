"""``headrace profiles``: what replicas were measured to carry, and whether that still holds."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import YesOption, confirm
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.output import age
from headrace.cli.paths import segment

ProfileArgument = Annotated[str, typer.Argument(metavar="PROFILE", help="Its id.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="What replicas were measured to carry.")
    list_command(group)(list_profiles)
    command(group, "get")(get_profile)
    command(group, "delete")(delete_profile)
    app.add_typer(group, name="profiles", rich_help_panel=LOOK)


def list_profiles(
    invocation: Invocation,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Only those of this model, or with id@version of that version.")
    ] = "",
) -> None:
    """The profiles of the project, the newest first; of one version the newest that is not stale counts."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/profiles", **in_scope(client), **({"model": model} if model else {}))
    invocation.output.document(found)
    now = time.time()
    rows = [
        (
            each["id"],
            f"{each['model_id']}@{each['model_version']}",
            each["runtime"],
            f"{each['tokens_per_s']:,.0f} tokens/s" if each["tokens_per_s"] else "none",
            f"{each['chunk']:,}",
            f"{100 * each['mean_error']:.0f} %",
            age(now - each["created_at"]),
            "yes" if each["stale"] else "no",
        )
        for each in found["profiles"]
    ]
    columns = ("PROFILE", "MODEL", "RUNTIME", "A REPLICA CARRIES", "CHUNK", "FIT OFF BY", "AGE", "STALE")
    empty = "No profiles. Measure a replica: headrace profile ENDPOINT"
    invocation.output.table(columns, rows, empty=empty, spare=("RUNTIME", "AGE"))


def get_profile(invocation: Invocation, profile: ProfileArgument) -> None:
    """One profile: what was measured, on what, and whether it still holds."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/profiles/{segment(profile)}", **in_scope(client))
    invocation.output.document(found)
    invocation.output.table(
        ("", ""),
        [
            ("profile", found["id"]),
            ("model", f"{found['model_id']}@{found['model_version']}"),
            ("runtime", found["runtime"]),
            ("hardware", found["hardware"]),
            ("engine", found["engine"]),
            ("stale", found["stale_because"] or "no"),
        ],
        empty="",
    )
    invocation.output.line()
    columns = ("READ", "WRITTEN", "AT A TIME", "A REQUEST TAKES", "FIRST TOKEN P95", "BETWEEN P95")
    invocation.output.table(columns, [_row(each) for each in found["points"]], empty="No points.")
    invocation.output.line(f"\n{found['summary']}")


def delete_profile(invocation: Invocation, profile: ProfileArgument, yes: YesOption = False) -> None:
    """Forget a profile; what was sold by it stays as it was sold."""
    with invocation.client() as client:
        confirm(invocation, f"Delete profile {profile}?", yes=yes)
        answer = client.delete(f"{ROOT}/profiles/{segment(profile)}")
    invocation.output.document(answer)
    invocation.output.line(f"Deleted profile {profile}.")


def _row(point: dict[str, Any]) -> tuple[str, ...]:
    took_s = point["wall_s"] / point["requests"]
    lengths = (f"{point['prompt_tokens']:,}", f"{point['output_tokens']:,}", f"{point['concurrency']}")
    return *lengths, *(f"{1e3 * value:,.1f} ms" for value in (took_s, point["first_s"], point["gap_s"]))
