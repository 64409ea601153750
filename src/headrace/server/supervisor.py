"""``headrace serve``: opens the public port and keeps gateways, control and node alive until it is told to stop.

It holds the listening sockets itself, so that a gateway that dies is replaced without one connection refused. It does
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from headrace.request_log import LogFiles
from headrace.resources.addresses import Addresses
from headrace.resources.egress import Egress
from headrace.resources.errors import DataDirInUse, DataDirUnusable
from headrace.resources.files import private_dir, write_private
from headrace.resources.layout import Layout, gateway_name
from headrace.resources.operations import KEPT_DAYS
from headrace.server import errand, huge_pages, open_files
from headrace.server.children import Child
from headrace.server.database import keep_url
from headrace.server.listening import EVERYWHERE, listening, place_here, place_of
from headrace.server.tls.files import CertificateFiles
from headrace.server.tls.names import PROXY, served_names
from headrace.server.tls.renewal import keep_renewed
from headrace.server.vertex_grpc import EXTRA
from headrace.server.vertex_proxy.connect import CERTIFIED_NAMES
from headrace.server.ways_in import GRPC, PROXY_WARNING, Opened, WaysIn, opened


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to serve TLS.

    Attributes:
        port: Port to listen on, next to the plain one; 0 takes a free one.
        host: Address of that port; empty: the plain one's.
        names: What clients may call this machine, besides its own names, in a certificate of the private authority.
        own: The operator's certificate; None: one of the private authority, which is made if need be.
    """

    port: int
    host: str = ""
    names: tuple[str, ...] = ()
    own: CertificateFiles | None = None

    def files(self, layout: Layout) -> CertificateFiles:
        """What a gateway shows."""
        return self.own or CertificateFiles(layout.tls_certificate, layout.tls_certificate)


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
        model_mirrors: Where published models are kept, as `headrace.catalogue.read_mirror` reads them.
        tls: The TLS port; None without one.
        cors_origins: Whose pages browsers let read answers, as `headrace.gateway.cors.read_origins` has them.
        request_log: How its files are kept; whether there are any is each endpoint's own.
        otlp_traces_endpoint: Where spans go; empty: where OpenTelemetry's environment variables say, if they do.
        gateways: How many processes serve the port.
        database_url: The PostgreSQL database, as `headrace.server.database.read_url` has it; empty: a SQLite file.
        keep_history_days: For how long operations, rollouts, replicas and deployments are kept once they are over; 0:
            for ever.
        ways: The ways in beside the two ports.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    port_search: bool = False
    drain_timeout_s: float = 30.0
    stall_timeout_s: float = 120.0
    egress: Egress = Egress()
    model_cache_bytes: int | None = None
    model_mirrors: tuple[str, ...] = ()
    tls: TlsSettings | None = None
    cors_origins: tuple[str, ...] = ()
    request_log: LogFiles = LogFiles()
    otlp_traces_endpoint: str = ""
    gateways: int = 1
    database_url: str = ""
    keep_history_days: float = KEPT_DAYS
    ways: WaysIn = WaysIn()

    @property
    def secure_host(self) -> str:
        """Address of what is served with TLS."""
        return (self.tls.host if self.tls is not None else "") or self.host


_FRONTS_COME = "Vertex AI's other ways in are not open yet; each is told here once it is. gRPC takes some seconds."
"""Google's library, whose messages it takes, is imported first."""


def serve(settings: ServeSettings, *, say: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT; then drain, stop everything that runs, and return.

    Args:
        settings: How.
        say: Takes the sentences meant for a person.

    Raises:
        DataDirInUse: Another server runs on the same data directory.
        DataDirUnusable: It cannot be written.
        DatabaseCorrupt: What is in it is no database.
        DatabaseAway: PostgreSQL cannot be reached, or not be used.
        BadField: A host is no address of this machine.
        PortTaken: A port is taken, and no other was to be tried.
        TlsCertificateInvalid: The certificate for the TLS port cannot be used.
    """
    layout = Layout(settings.data_dir)
    if settings.tls is not None and settings.tls.own is not None:
        settings.tls.own.context()  # one that cannot be used is told of before anything is made
    _make_folders(layout)
    with contextlib.ExitStack() as held:
        held.enter_context(_sole_server(layout))
        places = [(settings.host, settings.port)]
        if settings.tls is not None:
            places.append((settings.secure_host, settings.tls.port))
        listeners = [
            held.enter_context(listening(host, port, search=settings.port_search, sockets=settings.gateways, say=say))
            for host, port in places
        ]
        ways = held.enter_context(opened(settings.ways, settings.secure_host, search=settings.port_search, say=say))
        # Fresh at each start: only our own processes show it, and they start below.
        write_private(layout.internal_token, secrets.token_urlsafe(32).encode())
        keep_url(layout, settings.database_url)
        asyncio.run(_Supervisor(settings, layout, listeners, ways, say).run())


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


def _url(scheme: str, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{place_here(host, port)}"


def _reached(place: str) -> str:
    host, _, port = place.rpartition(":")
    return place_here(host.strip("[]"), port) if place else ""


def _known_as(settings: ServeSettings, listener: socket.socket) -> str:
    """Host and port of the TLS port, as clients that may be elsewhere can know it and its certificate has it."""
    host, port = listener.getsockname()[:2]
    if host in EVERYWHERE:
        named = settings.tls.names if settings.tls is not None else ()
        host = next((name for name in named if not name.startswith("*")), socket.gethostname())
    return place_of(host, port)


async def _all_ready(children: Iterable[Child]) -> None:
    for child in children:
        await child.ready.wait()


def _egress_arguments(egress: Egress) -> tuple[str, ...]:
    networks = tuple(f"--external-network={network}" for network in egress.networks)
    return (*networks, f"--external-ca-file={egress.ca_file}") if egress.ca_file else networks


def _control_arguments(settings: ServeSettings) -> tuple[str, ...]:
    mirrors = (f"--model-mirror={mirror}" for mirror in settings.model_mirrors)
    counts = ("--gateways", str(settings.gateways), f"--keep-history={settings.keep_history_days!r}")
    return (*counts, *_egress_arguments(settings.egress), *mirrors)


def _node_arguments(model_cache_bytes: int | None) -> tuple[str, ...]:
    return () if model_cache_bytes is None else (f"--model-cache-bytes={model_cache_bytes}",)


def _gateway(settings: ServeSettings, layout: Layout, number: int, listeners: Sequence[socket.socket]) -> Child:
    """A gateway with its socket of each port."""
    return Child(
        "gateway",
        layout,
        label=gateway_name(number),
        arguments=_gateway_arguments(settings, layout, number, listeners),
        pass_fds=tuple(each.fileno() for each in listeners),
    )


def _gateway_arguments(
    settings: ServeSettings, layout: Layout, number: int, listeners: Sequence[socket.socket]
) -> tuple[str, ...]:
    plain, *secure = (str(each.fileno()) for each in listeners)
    arguments = [
        *("--number", str(number), "--gateways", str(settings.gateways)),
        *("--listen-fd", plain, "--drain-timeout-s", str(settings.drain_timeout_s)),
        *("--stall-timeout-s", str(settings.stall_timeout_s)),
        f"--otlp-traces-endpoint={settings.otlp_traces_endpoint}",
        f"--request-log-format={settings.request_log.format}",
        f"--request-log-max-bytes={settings.request_log.max_bytes}",
        *(f"--cors-origin={origin}" for origin in settings.cors_origins),
    ]
    if settings.tls is not None:
        files = settings.tls.files(layout)
        arguments += ["--tls-listen-fd", *secure, f"--tls-certificate={files.certificate}", f"--tls-key={files.key}"]
    return tuple(arguments)


class _Supervisor:
    def __init__(
        self,
        settings: ServeSettings,
        layout: Layout,
        listeners: Sequence[Sequence[socket.socket]],
        ways: Opened,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._ways = ways
        plain, *secure = listeners
        self._url = _url("http", plain[0])
        self._tls_url = _url("https", secure[0][0]) if secure else ""
        self._secure_address = secure[0][0].getsockname()[0] if secure else ""
        self._say = say
        self._control = Child("control", layout, arguments=_control_arguments(settings))
        self._node = Child("node", layout, arguments=_node_arguments(settings.model_cache_bytes))
        self._gateways = [
            _gateway(settings, layout, number, own) for number, own in enumerate(zip(*listeners, strict=True))
        ]
        self._fronts = ways.children(
            layout,
            gateway_url=self._url,
            https_host=_known_as(settings, secure[0][0]) if secure else "",
            files=settings.tls.files(layout) if settings.tls is not None else None,
            drain_timeout_s=settings.drain_timeout_s,
        )
        self._addresses = self._where()

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await errand.send("prepare", str(self._layout.data_dir), self._url, *([self._tls_url] if self._tls_url else []))
        write_private(self._layout.addresses, msgspec.json.encode(self._addresses))
        house = (self._control, self._node, *self._gateways)
        keeping: list[asyncio.Task[None]] = []
        if self._addresses.tls_authority or self._addresses.proxy_authority:
            await self._certify()
            keeping.append(asyncio.create_task(keep_renewed(self._certify, self._say)))
        keeping += [asyncio.create_task(child.keep_alive(self._say)) for child in (*house, *self._fronts)]
        telling = asyncio.create_task(self._tell(house))
        await stop.wait()
        telling.cancel()
        self._say("Stopping: running requests may finish.")
        await self._stop(keeping)
        self._say("Stopped.")

    async def _tell(self, house: Iterable[Child]) -> None:
        """Say where the server is, each way in once it is open; gRPC takes seconds more to import Google's library."""
        await _all_ready(house)
        self._say(f"Headrace serves at {self._url}  (data in {self._layout.data_dir}; Ctrl-C stops it)")
        tls = self._settings.tls
        if tls is not None:
            whose = "your certificate" if tls.own else "a certificate of its own authority: `headrace ca export FILE`"
            self._say(f"TLS at {self._tls_url}, with {whose}")
        self._say(open_files.sentence(open_files.most(), self._settings.gateways))
        if slower := huge_pages.sentence():
            self._say(slower)
        if self._fronts:
            self._say(_FRONTS_COME)
            await _all_ready(self._fronts)
            self._tell_fronts()

    def _tell_fronts(self) -> None:
        if self._addresses.grpc:
            self._say(f"gRPC (Vertex AI) at {self._addresses.grpc}, with the TLS port's certificate")
        if self._addresses.proxy_url:
            self._say(PROXY_WARNING.format(url=self._addresses.proxy_url, authority=self._addresses.proxy_authority))
            if not self._ways.speaks_grpc:
                self._say(f"Clients that speak gRPC cannot use it here: {EXTRA}")

    def _where(self) -> Addresses:
        """All that can be told to clients of this server."""
        tls, proxy = self._settings.tls, self._ways.proxy
        authority = str(self._layout.tls_authority)
        return Addresses(
            url=self._url,
            tls_url=self._tls_url,
            tls_authority=authority if tls is not None and tls.own is None else "",
            grpc=_reached(self._ways.grpc),
            proxy_url=_url("http", proxy) if proxy is not None else "",
            proxy_authority=authority if proxy is not None else "",
        )

    async def _certify(self) -> None:
        """See that there are the certificates of the private authority, and that they are good for long enough.

        Raises:
            TlsCertificateInvalid: The authority cannot be used.
        """
        names: tuple[str, ...] = ()
        if self._settings.tls is not None and self._addresses.tls_authority:
            names = served_names((self._settings.secure_host, self._secure_address), self._settings.tls.names)
        proxied = (PROXY, *CERTIFIED_NAMES) if self._addresses.proxy_authority else ()
        await errand.send("tls.certify", str(self._layout.data_dir), *names, *proxied)

    async def _stop(self, keeping: list[asyncio.Task[None]]) -> None:
        """Gateways first (they drain), then the node (it ends the replicas), control last (it records both).

        gRPC is before all of them: its calls are requests to the gateways. The proxy ends with those, for connections
        through it end when theirs do.
        """
        timeout_s = self._settings.drain_timeout_s + 15
        grpc = [child for child in self._fronts if child.label == GRPC]
        draining = [*self._gateways, *(child for child in self._fronts if child.label != GRPC)]
        for children in (grpc, draining):
            await asyncio.gather(*(child.stop(timeout_s=timeout_s) for child in children))
        for child in (self._node, self._control):
            await child.stop(timeout_s=timeout_s)
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
