"""``headrace serve``: the server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.help import SERVE
from headrace.cli.invocation import Invocation, command
from headrace.resources.egress import Egress, read_network
from headrace.resources.layout import default_data_dir

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Everything durable is in it; else $HEADRACE_DATA_DIR, else the user's data folder."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "serve", server=False, panel=SERVE)(serve)


def serve(
    invocation: Invocation,
    *,
    data_dir: DataDirOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    port_search: Annotated[bool, typer.Option("--port-search", help="Take the next free port if it is taken.")] = False,
    drain_timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds that running requests may go on once it is told to stop.")
    ] = 30.0,
    stall_timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds that nothing may come of an answer that an engine has begun.")
    ] = 120.0,
    external_network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            help="A private network in which everyone who may deploy may name external servers. Can be repeated.",
        ),
    ] = None,
    external_ca_file: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, resolve_path=True, help="Authorities (PEM) to trust for external servers, too."
        ),
    ] = None,
    model_cache_bytes: Annotated[
        int | None,
        typer.Option(
            min=0,
            envvar="HEADRACE_MODEL_CACHE_BYTES",
            help="How much staged models may take before the longest unused ones go; any amount if not given.",
        ),
    ] = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; running requests may finish, then everything stops."""
    from headrace.server import ServeSettings  # noqa: PLC0415  # brings the whole server
    from headrace.server import serve as run_server  # noqa: PLC0415

    settings = ServeSettings(
        data_dir=data_dir or default_data_dir(),
        host=host,
        port=port,
        port_search=port_search,
        drain_timeout_s=drain_timeout,
        stall_timeout_s=stall_timeout,
        egress=Egress(
            networks=tuple(read_network(each) for each in external_network or ()),
            ca_file=str(external_ca_file or ""),
        ),
        model_cache_bytes=model_cache_bytes,
    )

    def say(sentence: str) -> None:
        invocation.output.line(sentence)
        invocation.output.event({"message": sentence})

    run_server(settings, say=say)
