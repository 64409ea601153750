"""``headrace credentials``: what a project's weights are fetched with, by whoever owns the server's data directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.serve import DataDirOption
from headrace.resources.errors import BadField, CredentialsNotFound
from headrace.resources.layout import Layout, default_data_dir
from headrace.resources.names import DEFAULT_PROJECT
from headrace.storage.credentials import Credentials

ProjectOption = Annotated[str, typer.Option("--project", help="The only project that they are used for.")]
SchemeArgument = Annotated[str, typer.Argument(metavar="s3|gs|az|hf", help="The addresses that they are used for.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="What a project's weights are fetched with; for this machine's server.")
    command(group, "set", server=False)(set_credentials)
    list_command(group, server=False)(list_credentials)
    command(group, "delete", server=False)(delete)
    app.add_typer(group, name="credentials", rich_help_panel=MANAGE)


def set_credentials(
    invocation: Invocation,
    scheme: SchemeArgument,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[=VALUE]...",
            help="The vendor's names, as AWS_ACCESS_KEY_ID; without a value it is taken from the environment, "
            "where neither history nor `ps` shows it.",
        ),
    ],
    project: ProjectOption = DEFAULT_PROJECT,
    data_dir: DataDirOption = None,
) -> None:
    """Keep a project's credentials for a scheme, in place of those it had. The next download uses them."""
    _credentials(data_dir).set(project, scheme, dict(_pair(each) for each in values))
    invocation.output.document({"project": project, "scheme": scheme})
    invocation.output.line(f"Project {project!r} fetches from {scheme}:// with these from now on.")


def list_credentials(invocation: Invocation, data_dir: DataDirOption = None) -> None:
    """Which projects have some, and their names; never a value."""
    found = _credentials(data_dir).list()
    invocation.output.document(
        {"credentials": [{"project": project, "scheme": scheme, "names": names} for project, scheme, names in found]}
    )
    rows = [(project, scheme, ", ".join(names)) for project, scheme, names in found]
    invocation.output.table(("PROJECT", "SCHEME", "NAMES"), rows, empty="None: the server's own environment counts.")


def delete(
    invocation: Invocation,
    scheme: SchemeArgument,
    project: ProjectOption = DEFAULT_PROJECT,
    data_dir: DataDirOption = None,
) -> None:
    """Forget a project's credentials for a scheme: the server's own environment counts again."""
    if not _credentials(data_dir).delete(project, scheme):
        raise CredentialsNotFound(
            f"Project {project!r} has no credentials for {scheme}://.", fix="`headrace credentials` lists all."
        )
    invocation.output.document({"project": project, "scheme": scheme})
    invocation.output.line(f"Project {project!r} has none for {scheme}:// any more.")


def _credentials(data_dir: Path | None) -> Credentials:
    return Credentials(Layout(data_dir or default_data_dir()).credentials)


def _pair(given: str) -> tuple[str, str]:
    name, told, value = given.partition("=")
    if not told and name not in os.environ:
        raise BadField(f"{name} is not in the environment.", fix=f"Export it, or give {name}=VALUE.")
    value = value if told else os.environ[name]
    if name == "GOOGLE_APPLICATION_CREDENTIALS":  # names a file, which need not stay where it is
        try:
            return name, Path(value).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadField(f"The key file that {name} names cannot be read.", evidence=type(error).__name__) from None
    return name, value
