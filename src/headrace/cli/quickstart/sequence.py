"""The steps of a quickstart in their order. What is done is not done twice; what it started ends with it."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.ends import every_end_is_an_interrupt
from headrace.cli.invocation import Invocation
from headrace.cli.progress import Steps
from headrace.cli.serve import DataDirOption
from headrace.resources.errors import InternalError, ServerStartFailed
from headrace.resources.layout import Layout, default_data_dir

if TYPE_CHECKING:
    from headrace.cli.contexts import Login
    from headrace.cli.output import Output
    from headrace.cli.quickstart.server import ServerChild


def quickstart(
    invocation: Invocation,
    once: Annotated[
        bool, typer.Option("--once", help="Stop everything after the answer; 0 if it was streamed.")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to begin the search for a free one at.")] = 8080,
    data_dir: DataDirOption = None,
) -> None:
    """From nothing to a streamed answer: check, install, fetch a model, serve, deploy, ask. Ctrl-C stops it all."""
    layout = Layout(data_dir or default_data_dir())
    steps = Steps(invocation.output)
    with every_end_is_an_interrupt():
        model_dir = _prepared(layout, steps)
        with _server(layout, port, steps) as (login, child):
            _deploy_and_ask(invocation, login, model_dir, steps)
            _offer(invocation, layout, login, model_dir, ends_now=once and child is not None)
            if child is not None and not once:
                _stay(child, invocation.output)


def _prepared(layout: Layout, steps: Steps) -> Path:
    # What brings NumPy, httpx and the table of runtimes is imported late: `headrace version` should not wait for it.
    from headrace.cli.quickstart.machine import require_no_gaps  # noqa: PLC0415
    from headrace.cli.quickstart.prepare import is_prepared, prepare  # noqa: PLC0415

    if not is_prepared(layout):  # the disk that it takes is taken afterwards
        require_no_gaps(layout.data_dir)
        steps.say("Machine: has all that is needed")
    return prepare(layout, steps)


@contextmanager
def _server(layout: Layout, port: int, steps: Steps) -> Iterator[tuple[Login, ServerChild | None]]:
    """The server that runs already, or a child that ends with the block."""
    from headrace.cli.quickstart.server import DRAIN_TIMEOUT_S, ServerChild, answering_server  # noqa: PLC0415

    login = answering_server(layout.data_dir)
    if login is not None:
        steps.say(f"Server: already there ({login.url}); it stays when this ends")
        yield login, None
        return
    child = ServerChild(layout.data_dir, port)
    try:
        with steps.step("Server") as step:
            login = child.wait_ready()
            step.result = login.url
        if not login.url.endswith(f":{port}"):
            steps.say(f"Port {port} is taken; the server uses {login.url}")
        yield login, child
    finally:
        steps.say(
            "Stopping the server and everything that it runs: "
            f"waiting up to {DRAIN_TIMEOUT_S} s for running requests; Ctrl-C again stops now"
        )
        left = child.stop()
        if left:
            raise InternalError("Some processes could not be ended.", evidence=f"Process ids: {left}")
        steps.say("Stopped; nothing is left running")


def _deploy_and_ask(invocation: Invocation, login: Login, model_dir: Path, steps: Steps) -> None:
    from headrace.cli.client import Client  # noqa: PLC0415
    from headrace.cli.quickstart.answer import streamed_answer  # noqa: PLC0415
    from headrace.cli.quickstart.demo import ENDPOINT, ensure_deployed  # noqa: PLC0415

    with Client(login) as client:
        ensure_deployed(client, model_dir, steps)
        streamed_answer(client, invocation.output, ENDPOINT)
    invocation.output.event({"url": login.url, "endpoint": ENDPOINT, "model_dir": str(model_dir)})


def _offer(invocation: Invocation, layout: Layout, login: Login, model_dir: Path, *, ends_now: bool) -> None:
    """The address, and what to try next: on this server, or on one that stays where this one is about to end."""
    from headrace.cli.contexts import finds  # noqa: PLC0415
    from headrace.cli.quickstart.answer import three_commands  # noqa: PLC0415
    from headrace.cli.quickstart.demo import ENDPOINT  # noqa: PLC0415

    url_needed = not finds(login.url, layout.data_dir)
    commands = three_commands(login.url, ENDPOINT, headrace=_how_to_call_us(layout), url_needed=url_needed)
    where = f"Serving at {login.url}. Three commands to try next, in another terminal:"
    if ends_now:
        where = f"Served at {login.url}, which ends now. Three commands to try on a server that stays, without --once:"
    invocation.output.line(f"\n{where}\n\n{commands}")
    invocation.output.line(f"\nThe model is in {model_dir}; `headrace deploy` takes a folder like it.")


def _how_to_call_us(layout: Layout) -> str:
    """``headrace``, with its whole path and the data directory where it would not be found without."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "headrace" else "headrace"
    found = shutil.which("headrace")
    name = "headrace" if found and Path(found).resolve() == Path(program).resolve() else shlex.quote(program)
    if layout.data_dir == Layout(default_data_dir()).data_dir:
        return name
    return f"HEADRACE_DATA_DIR={shlex.quote(str(layout.data_dir))} {name}"


def _stay(child: ServerChild, output: Output) -> None:
    """Until Ctrl-C, which is how this is meant to end, however soon after it was offered.

    Raises:
        ServerStartFailed: The server ended by itself.
    """
    try:
        output.line("\nCtrl-C stops the server and everything that it runs.")
        while child.lives():
            time.sleep(0.5)
    except KeyboardInterrupt:
        return
    raise ServerStartFailed("The server ended.", fix="Its log is `logs/serve.log` in the data directory.")
