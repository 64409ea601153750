"""``headrace keys``: who may do what. Admins only."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from headrace.cli.deployments import ROOT
from headrace.cli.endpoints import YesOption, confirm
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.output import age
from headrace.cli.paths import segment
from headrace.resources.access import Role


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Who may do what. Admins only.")
    command(group, "create")(create)
    list_command(group)(list_keys)
    command(group, "revoke")(revoke)
    app.add_typer(group, name="keys", rich_help_panel=MANAGE)


def create(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    role: Annotated[
        Role, typer.Option(help="viewer sees, predictor asks, deployer deploys, admin does all.")
    ] = Role.PREDICTOR,
    secret_only: Annotated[bool, typer.Option("--secret-only", help="Print the secret alone, for a variable.")] = False,
) -> None:
    """Make a key for the project (--project '*' for all). Its secret is shown once and stored nowhere."""
    with invocation.client() as client:
        body = {"name": name, "role": role.value, "project": client.login.project}
        made = client.post(f"{ROOT}/keys", body)
    invocation.output.document(made)
    if secret_only:
        invocation.output.line(made["secret"])
        return
    invocation.output.line(f"Key {made['id']} for {name!r}: {role.value} in project {made['project']!r}.")
    invocation.output.line(f"\n  {made['secret']}\n")
    invocation.output.line("This is the only time that it is shown. Use it with `headrace login` or HEADRACE_API_KEY.")


def list_keys(invocation: Invocation) -> None:
    """All keys that you may see, revoked ones too; never their secrets."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/keys")
    invocation.output.document(found)
    now = time.time()
    rows = [
        (
            each["id"],
            each["name"],
            f"{each['hint']}…",
            each["role"],
            each["project"],
            age(now - each["created_at"]),
            "revoked" if each.get("revoked_at") else "good",
        )
        for each in found["keys"]
    ]
    columns = ("KEY", "NAME", "BEGINS WITH", "ROLE", "PROJECT", "AGE", "STATE")
    invocation.output.table(columns, rows, empty="No keys.", spare=("BEGINS WITH", "AGE"))


def revoke(
    invocation: Invocation,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `headrace keys list`.")],
    yes: YesOption = False,
) -> None:
    """Make a key worthless, for good; reaches the gateway within a second."""
    with invocation.client() as client:
        confirm(invocation, f"Revoke key {key_id}?", yes=yes)
        revoked = client.delete(f"{ROOT}/keys/{segment(key_id)}")
    invocation.output.document(revoked)
    invocation.output.line(f"Key {key_id} ({revoked['name']!r}) is revoked.")
