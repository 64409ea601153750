"""``headrace keys``: who may do what. Admins only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.deployments import ROOT
from headrace.cli.endpoints import YesOption, confirm
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.output import age
from headrace.cli.paths import segment
from headrace.cli.service_accounts import create_service_account
from headrace.resources.access import KeyFormat, Role
from headrace.resources.errors import KeyNotFound, NameAmbiguous

if TYPE_CHECKING:
    from headrace.cli.client import Client

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, or its name where that is its alone.")]
RequestsOption = Annotated[
    int | None,
    typer.Option("--requests-per-minute", min=0, metavar="N", help="Inference requests in any 60 s. 0: no limit."),
]
TokensOption = Annotated[
    int | None,
    typer.Option(
        "--tokens-per-minute", min=0, metavar="N", help="Tokens of prompts and answers in any 60 s. 0: no limit."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Who may do what. Admins only.")
    command(group, "create")(create)
    list_command(group)(list_keys)
    command(group, "update")(update)
    command(group, "revoke")(revoke)
    app.add_typer(group, name="keys", rich_help_panel=MANAGE)


def create(
    invocation: Invocation,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Who or what will use it; a service account may go without one.")
    ] = "",
    role: Annotated[
        Role, typer.Option(help="viewer sees, predictor asks, deployer deploys, admin does all.")
    ] = Role.PREDICTOR,
    *,
    key_format: Annotated[
        KeyFormat, typer.Option("--format", help="A key to send along, or a file that Google's libraries sign with.")
    ] = KeyFormat.PLAIN,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where a service account's file goes; without, to stdout.")
    ] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    secret_only: Annotated[bool, typer.Option("--secret-only", help="Print the secret alone, for a variable.")] = False,
) -> None:
    """Make a key for the project (--project '*' for all). Its secret is shown once and stored nowhere."""
    signs = key_format is KeyFormat.SERVICE_ACCOUNT
    if not signs and out is not None:
        raise typer.BadParameter("Only a service account has a file: add --format service-account.")
    if not signs and not name:
        raise typer.BadParameter("Name who or what will use it.")
    body = {"name": name or key_format.value, "role": role.value}
    body |= _limits(requests_per_minute, tokens_per_minute)
    if signs:
        create_service_account(invocation, body, out)
        return
    with invocation.client() as client:
        made = client.post(f"{ROOT}/keys", body | {"project": client.login.project})
    invocation.output.document(made)
    if secret_only:
        invocation.output.line(made["secret"])
        return
    invocation.output.line(f"Key {made['id']} for {name!r}: {role.value} in project {made['project']!r}.")
    if _told(made):
        invocation.output.line(f"It may use {_told(made)} per minute.")
    invocation.output.line(f"\n  {made['secret']}\n")
    invocation.output.line("This is the only time that it is shown. Use it with `headrace login` or HEADRACE_API_KEY.")


def list_keys(invocation: Invocation) -> None:
    """All keys that you may see, or with --project those of one, revoked ones too; never their secrets."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/keys", **_among(invocation))
    invocation.output.document(found)
    now = time.time()
    rows = [
        (
            each["id"],
            each["name"],
            f"{each['hint']}…" if each["hint"] else each.get("format", ""),
            each["role"],
            each["project"],
            _told(each),
            age(now - each["created_at"]),
            "revoked" if each.get("revoked_at") else "good",
        )
        for each in found["keys"]
    ]
    columns = ("KEY", "NAME", "BEGINS WITH", "ROLE", "PROJECT", "PER MINUTE", "AGE", "STATE")
    invocation.output.table(columns, rows, empty="No keys.", spare=("BEGINS WITH", "AGE"))


def update(
    invocation: Invocation,
    wanted: KeyArgument,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
) -> None:
    """Change what a key may use in a minute; reaches the gateway within a second, and what is under way goes on."""
    changes = _limits(requests_per_minute, tokens_per_minute)
    if not changes:
        raise typer.BadParameter("Give --requests-per-minute, --tokens-per-minute, or both.")
    with invocation.client() as client:
        key_id = find_key(client, wanted, **_among(invocation))["id"]
        changed = client.patch(f"{ROOT}/keys/{segment(key_id)}", changes)
    invocation.output.document(changed)
    told = f"may use {_told(changed)} per minute" if _told(changed) else "has no limits"
    invocation.output.line(f"Key {key_id} ({changed['name']!r}) {told}.")


def revoke(
    invocation: Invocation,
    wanted: KeyArgument,
    yes: YesOption = False,
) -> None:
    """Make a key worthless, for good; reaches the gateway within a second."""
    with invocation.client() as client:
        found = find_key(client, wanted, **_among(invocation))
        key_id = found["id"]
        confirm(invocation, f"Revoke key {key_id} ({found['name']!r})?", yes=yes)
        revoked = client.delete(f"{ROOT}/keys/{segment(key_id)}")
    invocation.output.document(revoked)
    invocation.output.line(f"Key {key_id} ({revoked['name']!r}) is revoked.")


def find_key(client: Client, wanted: str, **among: str) -> dict[str, Any]:
    """The key with this id, else the one with this name: of several, the good one.

    Args:
        client: The server.
        wanted: An id or a name.
        among: Of which keys it is, as the query of their list; nothing: of all that the caller may see.

    Raises:
        KeyNotFound: There is none.
        NameAmbiguous: Several have the name, and not just one of them is good.
    """
    keys = client.get(f"{ROOT}/keys", **among)["keys"]
    by_id = [each for each in keys if each["id"] == wanted]
    named = by_id or [each for each in keys if each["name"] == wanted]
    meant = [each for each in named if not each.get("revoked_at")] or named
    if not meant:
        where = f" in project {among['project']!r}" if "project" in among else ""
        raise KeyNotFound(
            f"There is no key {wanted!r}{where}.",
            evidence=f"No key that you may see{where} has this id or name.",
            fix="`headrace keys list` shows them, ids first.",
        )
    if len(meant) > 1:
        raise NameAmbiguous(
            f"{len(meant)} keys have the name {wanted!r}.",
            evidence=f"Their ids: {', '.join(each['id'] for each in meant)}.",
            fix="Give the id of one of them.",
        )
    found: dict[str, Any] = meant[0]
    return found


def _among(invocation: Invocation) -> dict[str, str]:
    """The project that the command line names, as a query; a login's own project narrows nothing down."""
    return {"project": invocation.wish.project} if invocation.wish.project else {}


def _limits(requests_per_minute: int | None, tokens_per_minute: int | None) -> dict[str, Any]:
    """The limits that were given, as the API has them: null for none."""
    given = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
    return {name: limit or None for name, limit in given.items() if limit is not None}


def _told(key: dict[str, Any]) -> str:
    """What a key may use in a minute, for a person; empty without limits."""
    limits = [(key.get(f"{unit}_per_minute"), unit) for unit in ("requests", "tokens")]
    return ", ".join(f"{limit:,} {unit if limit != 1 else unit[:-1]}" for limit, unit in limits if limit)
