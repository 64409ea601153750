"""``headrace serve``: opens the public port and keeps gateway, control and node alive until it is told to stop.

It holds the listening socket itself, so that a gateway that dies is replaced without one connection refused. It does
nothing else: whatever can crash is in a child.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from headrace.resources.egress import Egress
from headrace.resources.errors import DataDirInUse, DataDirUnusable, Failure, InternalError, PortTaken, error_from
from headrace.resources.files import private_dir, write_private
from headrace.resources.layout import Layout
from headrace.server import open_files
from headrace.server.children import Child

PORTS_TO_TRY = 50


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to serve.

    Attributes:
        data_dir: Everything durable is in it; made if need be, mode 0700.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        port_search: Whether a taken port means the next free one.
        drain_timeout_s: How long running requests may go on after SIGTERM.
        stall_timeout_s: The longest that nothing comes of an engine's answer that has begun.
        egress: Where external servers may be, and whom to believe that they are it.
        model_cache_bytes: How much staged models may take before those that nobody uses go; None: any amount.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    port_search: bool = False
    drain_timeout_s: float = 30.0
    stall_timeout_s: float = 120.0
    egress: Egress = Egress()
    model_cache_bytes: int | None = None


def serve(settings: ServeSettings, *, say: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT; then drain, stop everything that runs, and return.

    Args:
        settings: How.
        say: Takes the sentences meant for a person.

    Raises:
        DataDirInUse: Another server runs on the same data directory.
        DataDirUnusable: It cannot be written.
        DatabaseCorrupt: What is in it is no database.
        PortTaken: The port is taken, and no other was to be tried.
    """
    layout = Layout(settings.data_dir)
    _make_folders(layout)
    with _sole_server(layout), _listen(settings, say) as listener:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else shown}:{port}"  # noqa: S104 - compared, not bound
        # Fresh at each start: only our own three processes show it, and they start below.
        write_private(layout.internal_token, secrets.token_urlsafe(32).encode())
        asyncio.run(_Supervisor(settings, layout, listener, url, say).run())


def _make_folders(layout: Layout) -> None:
    try:
        for folder in (layout.data_dir, layout.run_dir, layout.logs_dir):
            private_dir(folder)
        layout.lock.open("a").close()
    except OSError as error:
        raise DataDirUnusable(
            f"The data directory {layout.data_dir} cannot be used.",
            evidence=str(error),
            fix="Make it writable for this user, or serve from another --data-dir.",
        ) from None


@contextlib.contextmanager
def _sole_server(layout: Layout) -> Iterator[None]:
    with layout.lock.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise DataDirInUse(
                f"Another `headrace serve` runs on {layout.data_dir}.",
                evidence=f"Process {handle.read().strip() or 'unknown'} holds {layout.lock}.",
                fix="Use that one, stop it, or serve from another --data-dir.",
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _listen(settings: ServeSettings, say: Callable[[str], None]) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    last = settings.port + (PORTS_TO_TRY if settings.port_search and settings.port else 0)
    for port in range(settings.port, last + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, port))
        except OSError as problem:
            listener.close()
            if port == last:
                raise PortTaken(
                    f"Cannot listen on {settings.host}:{settings.port}.",
                    evidence=str(problem),
                    fix="Stop what listens there, or choose another --port (0 takes a free one).",
                ) from None
            continue
        if port != settings.port:
            say(f"Port {settings.port} is taken; using {port}.")
        listener.listen(2048)
        listener.set_inheritable(True)
        return listener
    raise AssertionError("the loop returns or raises")


async def _all_ready(children: Iterable[Child]) -> None:
    for child in children:
        await child.ready.wait()


def _egress_arguments(egress: Egress) -> tuple[str, ...]:
    networks = tuple(f"--external-network={network}" for network in egress.networks)
    return (*networks, f"--external-ca-file={egress.ca_file}") if egress.ca_file else networks


def _node_arguments(model_cache_bytes: int | None) -> tuple[str, ...]:
    return () if model_cache_bytes is None else (f"--model-cache-bytes={model_cache_bytes}",)


class _Supervisor:
    def __init__(
        self, settings: ServeSettings, layout: Layout, listener: socket.socket, url: str, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._url = url
        self._say = say
        fd = listener.fileno()
        gateway_arguments = (
            *("--listen-fd", str(fd), "--drain-timeout-s", str(settings.drain_timeout_s)),
            *("--stall-timeout-s", str(settings.stall_timeout_s)),
        )
        self._control = Child("control", layout, arguments=_egress_arguments(settings.egress))
        self._node = Child("node", layout, arguments=_node_arguments(settings.model_cache_bytes))
        self._gateway = Child("gateway", layout, arguments=gateway_arguments, pass_fds=(fd,))

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self._prepare()
        children = (self._control, self._node, self._gateway)
        keeping = [asyncio.create_task(child.keep_alive(self._say)) for child in children]
        ready = asyncio.create_task(_all_ready(children))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not stopping.done():
            self._say(f"Headrace serves at {self._url}  (data in {self._layout.data_dir}; Ctrl-C stops it)")
            self._say(open_files.sentence(open_files.most()))
        await stopping
        self._say("Stopping: running requests may finish.")
        await self._stop(keeping)
        self._say("Stopped.")

    async def _prepare(self) -> None:
        command = (sys.executable, "-m", "headrace.server.prepare", str(self._layout.data_dir), self._url)
        preparing = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await preparing.communicate()
        if not preparing.returncode:
            return
        try:
            failure = msgspec.json.decode(output, type=Failure)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InternalError(
                f"The data directory {self._layout.data_dir} could not be made ready.",
                evidence=output.decode(errors="replace")[-2000:],
            ) from None
        raise error_from(failure)

    async def _stop(self, keeping: list[asyncio.Task[None]]) -> None:
        """Gateway first (it drains), then the node (it ends the replicas), control last (it records both)."""
        for child in (self._gateway, self._node, self._control):
            await child.stop(timeout_s=self._settings.drain_timeout_s + 15)
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
