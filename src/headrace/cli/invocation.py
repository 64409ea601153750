"""What all commands share: their common options, their errors' way to an exit code, their access to the server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from headrace.cli.contexts import Login, Wish, resolve
from headrace.cli.exits import EXIT_CODES_LINE, ExitCode, WorkFailed, exit_code_of, report
from headrace.cli.output import Output
from headrace.resources.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.cli.client import Client

_PANEL = "Which server"

_JSON = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else; errors as JSON on stderr.")]
_SERVER_OPTIONS: dict[str, Any] = {
    "url": Annotated[str, typer.Option(help="Address of the server.", rich_help_panel=_PANEL)],
    "key": Annotated[str, typer.Option(help="Key; better kept by `headrace login`.", rich_help_panel=_PANEL)],
    "context": Annotated[str, typer.Option(help="A login stored under this name.", rich_help_panel=_PANEL)],
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


def command(app: typer.Typer, name: str, *, server: bool = True) -> Callable[[Body], Body]:
    """Register ``body(invocation, **options)`` as a command with the options that all have.

    Args:
        app: The application or group that it belongs to.
        name: Its name.
        server: Whether it talks to a server, and so has the options that say which.
    """

    def register(body: Body) -> Body:
        shared = {"as_json": _JSON, **(_SERVER_OPTIONS if server else {})}

        def run(**arguments: Any) -> None:
            taken = {option: arguments.pop(option) for option in shared}
            as_json = bool(taken.pop("as_json"))
            invocation = Invocation(as_json=as_json, wish=Wish(**taken))
            _ended(lambda: body(invocation, **arguments), as_json=as_json)

        run.__doc__ = body.__doc__
        run.__signature__ = _signature(body, shared)  # type: ignore[attr-defined]  # what Typer reads
        run.__annotations__ = {each.name: each.annotation for each in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        app.command(name, epilog=EXIT_CODES_LINE)(run)
        return body

    return register


def _signature(body: Body, shared: dict[str, Any]) -> inspect.Signature:
    hints = get_type_hints(body, include_extras=True)
    _invocation, *own = inspect.signature(body).parameters.values()
    parameters = [
        each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for each in own
        if each.name not in shared
    ]
    parameters += [
        inspect.Parameter(
            option, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=False if option == "as_json" else ""
        )
        for option, hint in shared.items()
    ]
    return inspect.Signature(parameters)


def _ended(run: Callable[[], None], *, as_json: bool) -> None:
    try:
        run()
    except WorkFailed as failed:
        report(failed.error, as_json=as_json)
        raise typer.Exit(ExitCode.FAILED) from failed
    except HeadraceError as error:
        report(error, as_json=as_json)
        raise typer.Exit(exit_code_of(error)) from error
    except (KeyboardInterrupt, typer.Abort) as interrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from interrupt
