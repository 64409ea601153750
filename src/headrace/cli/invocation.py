"""What all commands share: their common options, their errors' way to an exit code, their access to the server."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from headrace.cli.contexts import Login, Wish, resolve
from headrace.cli.exits import EXIT_CODES_LINE, ExitCode, WorkFailed, WrongUsage, exit_code_of, report
from headrace.cli.help import Command, Group
from headrace.cli.output import Output
from headrace.resources.errors import Failure, HeadraceError, InternalError

if TYPE_CHECKING:
    from headrace.cli.client import Client

_PANEL = "Which server"

_JSON = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else; errors as JSON on stderr.")]
_SERVER_OPTIONS: dict[str, Any] = {
    "url": Annotated[str, typer.Option(help="Address of the server.", rich_help_panel=_PANEL)],
    "key": Annotated[str, typer.Option(help="Key; better kept by `headrace login`.", rich_help_panel=_PANEL)],
    "context": Annotated[str, typer.Option(help="A login stored under this name.", rich_help_panel=_PANEL)],
    "ca_file": Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Authorities (PEM) to trust for it, instead of the system's.", rich_help_panel=_PANEL
        ),
    ],
    "project": Annotated[str, typer.Option(help="Project.", rich_help_panel=_PANEL)],
    "location": Annotated[str, typer.Option(help="Location.", rich_help_panel=_PANEL)],
}


class Invocation:
    """One run of a command.

    Attributes:
        output: Where its answer goes.
        wish: What the command line says about the server.
    """

    def __init__(self, *, as_json: bool, wish: Wish) -> None:
        self.output = Output(as_json=as_json)
        self.wish = wish

    @property
    def as_json(self) -> bool:
        """Whether the reader is a program."""
        return self.output.as_json

    def login(self) -> Login:
        """The server to talk to.

        Raises:
            NotLoggedIn: None is known.
        """
        return resolve(self.wish)

    def client(self, login: Login | None = None) -> Client:
        """A connection to the server; close it by leaving its `with`.

        Raises:
            NotLoggedIn: None is known.
        """
        from headrace.cli.client import Client  # noqa: PLC0415  # httpx takes longer to import than `explain` to run

        return Client(login or self.login())


Body = Callable[..., None]


def command(app: typer.Typer, name: str, *, server: bool = True, panel: str | None = None) -> Callable[[Body], Body]:
    """Register ``body(invocation, **options)`` as a command with the options that all have.

    Args:
        app: The application or group that it belongs to.
        name: Its name.
        server: Whether it talks to a server, and so has the options that say which.
        panel: Under which heading `headrace --help` lists it.
    """

    def register(body: Body) -> Body:
        app.command(name, cls=Command, epilog=EXIT_CODES_LINE, rich_help_panel=panel)(_for_typer(body, server=server))
        return body

    return register


def list_command(group: typer.Typer, name: str = "list", *, server: bool = True) -> Callable[[Body], Body]:
    """Register a group's ``list``, or what stands for it, which also answers to the bare name of the group."""

    def register(body: Body) -> Body:
        run = _for_typer(body, server=server)

        def bare(*, ctx: typer.Context, **arguments: Any) -> None:
            if ctx.invoked_subcommand is None:
                run(**arguments)

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        _shown_as(bare, [context, *inspect.signature(run).parameters.values()])
        group.callback(cls=Group, invoke_without_command=True, help=group.info.help)(bare)
        group.command(name, cls=Command, epilog=EXIT_CODES_LINE)(run)
        return body

    return register


def _for_typer(body: Body, *, server: bool) -> Body:
    """The function that Typer calls: with the shared options, and with an exit code for each way to end."""
    shared = {"as_json": _JSON, **(_SERVER_OPTIONS if server else {})}

    def run(**arguments: Any) -> None:
        taken = {option: arguments.pop(option) for option in shared}
        as_json = bool(taken.pop("as_json"))
        invocation = Invocation(as_json=as_json, wish=Wish(**taken))
        _ended(lambda: body(invocation, **arguments), as_json=as_json)

    run.__doc__ = body.__doc__
    _shown_as(run, _parameters(body, shared))
    return run


def _parameters(body: Body, shared: dict[str, Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(body, include_extras=True)
    _invocation, *own = inspect.signature(body).parameters.values()
    only = inspect.Parameter.KEYWORD_ONLY
    return [each.replace(annotation=hints[each.name], kind=only) for each in own] + [
        inspect.Parameter(option, only, annotation=hint, default=False if option == "as_json" else "")
        for option, hint in shared.items()
    ]


def _shown_as(function: Body, parameters: list[inspect.Parameter]) -> None:
    """Give a function the signature that Typer reads."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as PEP 362 has it
    function.__annotations__ = {each.name: each.annotation for each in parameters}


def _ended(run: Callable[[], None], *, as_json: bool) -> None:
    try:
        run()
    except WorkFailed as failed:
        report(failed.error.failure, as_json=as_json)
        raise typer.Exit(ExitCode.FAILED) from failed
    except WrongUsage as wrong:
        report(wrong.failure, as_json=as_json)
        raise typer.Exit(ExitCode.USAGE) from wrong
    except HeadraceError as error:
        report(error.failure, as_json=as_json)
        raise typer.Exit(exit_code_of(error)) from error
    except (KeyboardInterrupt, typer.Abort) as interrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt is not to follow ^C
        raise typer.Exit(ExitCode.INTERRUPTED) from interrupt
    except (typer.Exit, typer.BadParameter, BrokenPipeError):
        raise
    except Exception as defect:
        report(_defect(defect), as_json=as_json)
        raise typer.Exit(ExitCode.FAILED) from defect


def _defect(error: Exception) -> Failure:
    """An exception that nobody expected, as a failure: our fault, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return InternalError(
        "The command met a defect of Headrace.",
        evidence=f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})",
        fix="Report it with this evidence and the output of `headrace version`.",
    ).failure
