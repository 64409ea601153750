"""``headrace login``: keep a server's address and key, so that no command needs a key pasted."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headrace.cli import contexts
from headrace.cli.contexts import Context, Wish, resolve
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command
from headrace.resources.access import EVERY_PROJECT
from headrace.resources.errors import NotLoggedIn
from headrace.resources.names import DEFAULT_PROJECT


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "login", panel=MANAGE)(login)


def login(
    invocation: Invocation,
    address: Annotated[
        str, typer.Argument(metavar="[URL]", help="The server; without, the one on this machine.", show_default=False)
    ] = "",
    name: Annotated[str, typer.Option(help="Name to keep it under; more than one server can be known.")] = "default",
) -> None:
    """Check a key with its server and keep both, readable by you only. The key is asked for, or read from stdin."""
    wish = Wish(**{**_fields(invocation.wish), "url": address or invocation.wish.url})
    target = resolve(wish, key_needed=False)
    # A key that is known already is used when this machine's own server is meant; any other is given anew.
    key = invocation.wish.key or ("" if address else target.key) or _ask(target.url)
    with invocation.client(contexts.Login(target.url, key, target.project, target.location, target.origin)) as client:
        who = client.get("/headrace/v1/whoami")
    project = invocation.wish.project or _project(who.get("project", ""))
    stored = contexts.load()
    stored.contexts[name] = Context(url=target.url, key=key, project=project, location=target.location)
    stored.current = name
    path = contexts.save(stored)
    invocation.output.document({"context": name, "url": target.url, "project": project, "whoami": who})
    invocation.output.line(
        f"Logged in to {target.url} as {who.get('name')!r}, {who.get('role')} in project {who.get('project')!r}; "
        f"commands use project {project!r}. Kept as {name!r} in {path}."
    )


def _fields(wish: Wish) -> dict[str, str]:
    return {field: getattr(wish, field) for field in wish.__struct_fields__}


def _project(reach: str) -> str:
    return DEFAULT_PROJECT if reach in ("", EVERY_PROJECT) else reach


def _ask(url: str) -> str:
    key = typer.prompt(f"Key for {url}", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise NotLoggedIn(
            f"No key was given for {url}.",
            evidence="stdin was empty.",
            fix="Give it with --key, or pipe it: `headrace login URL < key-file`.",
        )
    return str(key).strip()
