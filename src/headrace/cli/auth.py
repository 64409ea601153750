"""``headrace auth``: what goes behind ``Authorization: Bearer``, for commands that are not ours."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.exits import WrongUsage
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
"""Where Google's libraries look for the file of a service account."""

_FIX = "`headrace keys create --format service-account --out FILE` makes one."


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="What other programs show the server, as curl does.")
    command(group, "print-access-token")(print_access_token)
    app.add_typer(group, name="auth", rich_help_panel=MANAGE)


def print_access_token(
    invocation: Invocation,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file", metavar="FILE", help=f"A service account's file; else the one that {VARIABLE} names, if ours."
        ),
    ] = None,
) -> None:
    """Print a service account's token for the next hour, or the current login's key: curl -H "Authorization: Bearer …".

    It stands where Google's documents have `gcloud auth print-access-token`. No server is asked.
    """
    token = _of_file(key_file, named=True) if key_file is not None else None
    if token is None and not invocation.wish.key and (named := os.environ.get(VARIABLE)):
        token = _of_file(Path(named), named=False)
    token = token or invocation.login().key
    invocation.output.document({"access_token": token})
    invocation.output.line(token)


def _of_file(path: Path, *, named: bool) -> str | None:
    """A token of the service account in a file.

    Args:
        path: The file.
        named: Whether the command line names it. Otherwise it may well be one for Google's cloud: None then.

    Raises:
        WrongUsage: It is not one of ours, or has no private key.
    """
    from headrace.contracts.vertex.service_accounts import (  # noqa: PLC0415 - brings cryptography
        is_ours,
        read_file,
        sign_token,
    )

    try:
        account = read_file(path.read_bytes())
    except OSError as error:
        raise WrongUsage(
            f"The service account's file {path} cannot be read.", evidence=f"{error.strerror or error}.", fix=_FIX
        ) from error
    if account is None or not is_ours(account.client_email):
        whose = f"It is that of {account.client_email}." if account is not None else "It is no service account's file."
        if named:
            raise WrongUsage(f"The file {path} is not one that this server could know.", evidence=whose, fix=_FIX)
        print(f"{VARIABLE} is left aside: {path} is not of a Headrace server.", file=sys.stderr)
        return None
    try:
        return sign_token(account, now=time.time())
    except ValueError as error:
        raise WrongUsage(f"The file {path} has no private key.", evidence=f"{error}.", fix=_FIX) from error
