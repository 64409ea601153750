"""``headrace login`` and ``headrace contexts``: keep addresses and keys, so that no command needs a key pasted."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import msgspec
import typer

from headrace.cli import contexts
from headrace.cli.contexts import Context, Login, Wish, local_login, resolve
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command, list_command
from headrace.resources.access import EVERY_PROJECT
from headrace.resources.errors import NotLoggedIn
from headrace.resources.layout import default_data_dir
from headrace.resources.names import DEFAULT_PROJECT

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name that the login was kept under.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "login", panel=MANAGE)(login)
    group = typer.Typer(help="The logins that are kept, and which of them commands use.")
    list_command(group, server=False)(list_contexts)
    command(group, "use", server=False)(use_context)
    command(group, "delete", server=False)(delete_context)
    app.add_typer(group, name="contexts", rich_help_panel=MANAGE)


def login(
    invocation: Invocation,
    address: Annotated[
        str, typer.Argument(metavar="[URL]", help="The server; without, the one on this machine.", show_default=False)
    ] = "",
    name: Annotated[str, typer.Option(help="Name to keep it under; more than one server can be known.")] = "default",
) -> None:
    """Check a key with its server and keep both, readable by you only. The key is asked for, or read from stdin."""
    target = _target(invocation.wish, address)
    # A key that is known already is used when this machine's own server is meant; any other is given anew.
    key = invocation.wish.key or ("" if address else target.key) or _ask(target.url)
    tried = Login(target.url, key, target.project, target.location, target.origin, ca=target.ca)
    with invocation.client(tried) as client:
        who = client.get("/headrace/v1/whoami")
    project = invocation.wish.project or _project(who.get("project", ""))
    stored = contexts.load()
    stored.contexts[name] = Context(target.url, key, project, target.location, target.ca)
    stored.current = name
    path = contexts.save(stored)
    invocation.output.document({"context": name, "url": target.url, "project": project, "whoami": who})
    invocation.output.line(
        f"Logged in to {target.url} as {who.get('name')!r}, {who.get('role')} in project {who.get('project')!r}; "
        f"commands use project {project!r}. Kept as {name!r} in {path}."
    )


def list_contexts(invocation: Invocation) -> None:
    """Every login that is kept, and that of the server on this machine while it runs; never a key."""
    stored, local = contexts.load(), contexts.local_context()
    invocation.output.document(
        {
            "current": stored.current,
            "contexts": [
                {"name": name, "url": each.url, "project": each.project, "location": each.location}
                for name, each in stored.contexts.items()
            ],
            "local": local.url if local else None,
        }
    )
    rows = [
        (name, each.url, each.project, "in use" if name == stored.current else "")
        for name, each in stored.contexts.items()
    ]
    if local is not None:
        rows.append(("", local.url, local.project, _LOCAL_NOW if stored.current else f"in use: {_LOCAL_NOW}"))
    invocation.output.table(
        ("CONTEXT", "SERVER", "PROJECT", ""), rows, empty="No login is kept. Make one: headrace login URL"
    )


_LOCAL_NOW = "the server of this machine, `headrace login` uses it"


def use_context(invocation: Invocation, name: NameArgument) -> None:
    """Use this login from now on, where nothing stronger names a server."""
    stored = contexts.load()
    found = contexts.find(stored, name)
    stored.current = name
    contexts.save(stored)
    invocation.output.document({"current": name, "url": found.url})
    invocation.output.line(f"Commands use {name!r} ({found.url}) from now on.")


def delete_context(invocation: Invocation, name: NameArgument) -> None:
    """Forget a login; its key stays good (`headrace keys revoke`)."""
    stored = contexts.load()
    contexts.find(stored, name)
    del stored.contexts[name]
    was_current = stored.current == name
    if was_current:
        stored.current = ""
    contexts.save(stored)
    invocation.output.document({"deleted": name, "current": stored.current})
    next_one = " None is current now: `headrace login`, or `headrace contexts use NAME`." if was_current else ""
    invocation.output.line(f"The login {name!r} is forgotten.{next_one}")


def _target(wish: Wish, address: str) -> Login:
    """The server that is meant; where nothing names one, this machine's, whatever the current context is.

    Raises:
        NotLoggedIn: None is named, and none runs here.
    """
    if address:
        found = resolve(Wish(**{**_fields(wish), "url": address}), key_needed=False)
        return msgspec.structs.replace(found, origin="the command line")
    if wish.url or wish.context or os.environ.get("HEADRACE_URL"):
        return resolve(wish, key_needed=False)
    return local_login(default_data_dir())


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
