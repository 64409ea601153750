"""An engine as a process: its arguments, its sockets, its signals and its end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from headrace_engines.serving.app import build_app
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.fatal import EXIT_STATUS, FatalError, fatal_from, write_last_line
from headrace_engines.serving.frozen import FROZEN_AFTER_S
from headrace_engines.serving.generator import LoadModel
from headrace_engines.serving.given_template import with_template
from headrace_engines.serving.tools.formats import FORMATS

TOKEN_VARIABLE = "HEADRACE_ENGINE_TOKEN"  # noqa: S105 - the variable's name, not a token
DRAIN_TIMEOUT_S = 30
DEATH_FLUSH_TIMEOUT_S = 2
"""After death the open requests have failed already; this is only to get the errors out to their readers."""

_BACKLOG = 2048

_log = logging.getLogger("headrace.engine")


def shared_arguments(program: str) -> argparse.ArgumentParser:
    """The arguments that every engine takes; an engine adds its own."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="folder of the weights")
    parser.add_argument("--served-model-name", required=True, metavar="NAME", help="the name that clients use")
    parser.add_argument(
        "--tool-parser",
        choices=sorted(FORMATS),
        help="how the model writes tool calls (default: as its template shows)",
    )
    parser.add_argument(
        "--chat-template", type=Path, metavar="FILE", help="a Jinja template of chats, in place of the folder's own"
    )
    parser.add_argument("--uds", type=Path, metavar="PATH", help="unix socket to create and listen on")
    parser.add_argument("--host", default="127.0.0.1", help="with --port: address to listen on")
    parser.add_argument("--port", type=int, help="TCP port to listen on, besides or instead of --uds")
    parser.add_argument(
        "--frozen-after",
        type=float,
        default=FROZEN_AFTER_S,
        metavar="S",
        help="unhealthy when requests wait and what computes uses no processor for this long (default: %(default)g)",
    )
    return parser


def serve(arguments: argparse.Namespace, load_model: LoadModel, versions: dict[str, str]) -> None:
    """Serve until SIGTERM (exit status 0) or death (`EXIT_STATUS`). Never returns."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        fatal = _Process(arguments, versions).run(with_template(load_model, arguments.chat_template))
    except (Exception, SystemExit) as error:
        _log.exception("The engine's server failed.")
        fatal = fatal_from(error)
    if fatal is not None:
        write_last_line(fatal)
    sys.stdout.flush()
    # Not sys.exit: native threads of the engine may still run, and unwinding the interpreter under them can crash.
    os._exit(0 if fatal is None else EXIT_STATUS)


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal instead of with status 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain)
        yield

    def _drain(self) -> None:
        self.force_exit = self.should_exit  # a second signal does not wait
        self.should_exit = True


class _Process:
    def __init__(self, arguments: argparse.Namespace, versions: dict[str, str]) -> None:
        self._arguments = arguments
        self._fatal: FatalError | None = None
        self._engine = Engine(
            arguments.served_model_name,
            versions,
            self._on_death,
            tool_parser=arguments.tool_parser,
            frozen_after_s=arguments.frozen_after,
        )
        config = uvicorn.Config(
            build_app(self._engine, os.environ.get(TOKEN_VARIABLE)),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
        )
        self._server = _Server(config)

    def run(self, load_model: LoadModel) -> FatalError | None:
        sockets = list(_listeners(self._arguments))
        try:
            with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
                runner.run(self._serve(load_model, sockets))
        finally:
            if self._arguments.uds is not None:
                self._arguments.uds.unlink(missing_ok=True)
        return self._fatal

    async def _serve(self, load_model: LoadModel, sockets: list[socket.socket]) -> None:
        starting = asyncio.create_task(self._engine.start(load_model))
        await self._server.serve(sockets)
        starting.cancel()

    def _on_death(self, fatal: FatalError) -> None:
        _log.error("The engine is dead: %s", fatal.message)
        self._fatal = fatal
        self._server.config.timeout_graceful_shutdown = DEATH_FLUSH_TIMEOUT_S
        self._server.should_exit = True


def _listeners(arguments: argparse.Namespace) -> Iterator[socket.socket]:
    if arguments.uds is None and arguments.port is None:
        raise FatalError("ENGINE_DIED", "There is nothing to listen on: give --uds, --port or both.")
    if arguments.uds is not None:
        yield _unix_listener(arguments.uds)
    if arguments.port is not None:
        family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
        yield socket.create_server((arguments.host, arguments.port), family=family, backlog=_BACKLOG)


def _unix_listener(path: Path) -> socket.socket:
    """A listening unix socket that only this user can open; a stale one in its place is removed."""
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise FatalError("ENGINE_DIED", "The socket's path is taken by something else.", evidence=str(path))
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(_BACKLOG)
    return listener
