"""The application: all commands together, and how a wrong command line is answered."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from headrace.cli import (
    auth,
    ca,
    calibrate,
    certify,
    clean,
    convert,
    credentials,
    deploy,
    deployments,
    doctor,
    drill,
    endpoints,
    env,
    explain,
    garden,
    inference,
    keys,
    login,
    models,
    operations,
    plan,
    profile,
    profiles,
    quickstart,
    quota,
    rollouts,
    runtimes,
    serve,
    simulate,
    status,
    usage,
    version,
)
from headrace.cli.exits import EXIT_CODES_LINE, USAGE, ExitCode
from headrace.cli.help import Group

_GROUPS = (
    quickstart,
    serve,
    doctor,
    garden,
    deploy,
    inference,
    status,
    usage,
    plan,
    calibrate,
    certify,
    profile,
    profiles,
    simulate,
    explain,
    version,
    endpoints,
    models,
    deployments,
    rollouts,
    operations,
    login,
    keys,
    auth,
    credentials,
    ca,
    env,
    quota,
    runtimes,
    convert,
    clean,
    drill,
)
"""In the order in which a newcomer meets them."""

app = typer.Typer(
    name="headrace",
    cls=Group,
    help="Serve your own models on your own machines, to the clients that you already have.",
    epilog=EXIT_CODES_LINE,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
for _group in _GROUPS:
    _group.register(app)


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=version.show_and_leave, is_eager=True)
    ] = False,
) -> None:
    """Nothing: its options act by themselves."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status. With ``--json`` even a wrong one is answered in JSON."""
    as_json = "--json" in arguments
    try:
        status_code = app(list(arguments), prog_name="headrace", standalone_mode=not as_json)
    except SystemExit as end:  # what a standalone run always ends with
        return end.code if isinstance(end.code, int) else ExitCode.FAILED
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except Exception as error:
        format_message = getattr(error, "format_message", None)  # only Typer's errors of usage have it
        if format_message is None:
            raise
        document = {"error": {"code": USAGE, "message": str(format_message())}}
        print(msgspec.json.encode(document).decode(), file=sys.stderr)
        return ExitCode.USAGE
    return status_code if isinstance(status_code, int) else ExitCode.OK
