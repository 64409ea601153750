"""``headrace serve``: the server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.exits import WrongUsage
from headrace.cli.help import SERVE
from headrace.cli.invocation import Invocation, command
from headrace.request_log.settings import MAX_BYTES, LogFiles, LogFormat
from headrace.resources.egress import Egress, read_network
from headrace.resources.extras import install
from headrace.resources.layout import default_data_dir
from headrace.resources.operations import KEPT_DAYS

if TYPE_CHECKING:
    from headrace.server.supervisor import TlsSettings
    from headrace.server.ways_in import WaysIn

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Everything durable is in it; else $HEADRACE_DATA_DIR, else the user's data folder."
    ),
]


CertificateOption = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Your own certificate (PEM) for the TLS port, with those that lead to its authority; renewed files count.",
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Its key (PEM); without, it is in the certificate's file."),
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
    gateways: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that share the port; one fills a core when it is busy.")
    ] = 1,
    database_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="HEADRACE_DATABASE_URL",
            help="Keep the rows in PostgreSQL, postgresql://USER@HOST/DATABASE; needs headrace\\[postgresql].",
        ),
    ] = "",
    keep_history: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="DAYS",
            help="Forget operations, rollouts, replicas and deployments so long after they were over; 0: never.",
        ),
    ] = KEPT_DAYS,
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
    model_mirror: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]ADDRESS",
            help="Where models of the catalogue are when the Hugging Face Hub is not to be reached: a folder that has "
            "OWNER/NAME, or an address with {owner} and {name} in it; of NAME alone, or of all. Can be repeated.",
        ),
    ] = None,
    tls_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve TLS, too, on this port; 0 takes a free one.")
    ] = None,
    tls_host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address of the TLS port, if another than --host: so the plain one stays on this machine.",
        ),
    ] = "",
    tls_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="One more name or address that clients call this machine by, for the certificate. Can be repeated.",
        ),
    ] = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Whose web pages browsers let read answers: https://chat.example.org, or * for all. Can be repeated.",
        ),
    ] = None,
    otlp_traces_endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Send OpenTelemetry traces there (OTLP over HTTP), or as OTEL_… say; needs headrace\\[otel].",
        ),
    ] = "",
    request_log_format: Annotated[
        LogFormat, typer.Option(help="What files of request logs become; parquet is the extra headrace\\[parquet].")
    ] = LogFormat.JSONL,
    request_log_max_bytes: Annotated[
        int,
        typer.Option(min=2**20, help="How much the request logs of each gateway may take before the oldest files go."),
    ] = MAX_BYTES,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve Vertex AI over gRPC, too, with the TLS port's certificate; needs the extra "
            "headrace\\[vertex-grpc]; 0 takes a free one.",
        ),
    ] = None,
    vertex_proxy_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="For development: a proxy that leads the addresses of Vertex AI here, for code that names no other; "
            "0 takes a free one.",
        ),
    ] = None,
    vertex_proxy_host: Annotated[
        str, typer.Option(help="Address that this proxy listens on; without this option it is the loopback alone.")
    ] = "",
) -> None:
    """Serve until Ctrl-C or SIGTERM; running requests may finish, then everything stops."""
    from headrace.catalogue import read_mirror  # noqa: PLC0415  # brings NumPy
    from headrace.gateway.cors import read_origins  # noqa: PLC0415  # brings the whole gateway
    from headrace.server import database, tracing  # noqa: PLC0415  # brings the whole server
    from headrace.server.supervisor import ServeSettings  # noqa: PLC0415
    from headrace.server.supervisor import serve as run_server  # noqa: PLC0415

    if otlp_traces_endpoint and not tracing.available():
        raise WrongUsage(
            "Traces cannot be made here.",
            evidence="OpenTelemetry's exporter for OTLP over HTTP is not installed.",
            fix=f"{install('otel')}, or leave out --otlp-traces-endpoint.",
        )
    if database_url and not database.available():
        raise WrongUsage(
            "PostgreSQL cannot be used here.",
            evidence="Its driver, the package psycopg, is not installed.",
            fix=f"{install('postgresql')}, or leave out --database-url for a SQLite file.",
        )
    if not request_log_format.available:
        raise WrongUsage(
            "Request logs cannot be written as Parquet here.",
            evidence="The package pyarrow is not installed.",
            fix=f"{install('parquet')}, or leave out --request-log-format.",
        )
    for mirror in model_mirror or ():
        read_mirror(mirror)  # one that cannot be read is told of before anything is made
    _distinct({"--port": port, "--tls-port": tls_port, "--grpc-port": grpc_port})
    settings = ServeSettings(
        data_dir=data_dir or default_data_dir(),
        host=host,
        port=port,
        port_search=port_search,
        gateways=gateways,
        database_url=database.read_url(database_url) if database_url else "",
        keep_history_days=keep_history,
        drain_timeout_s=drain_timeout,
        stall_timeout_s=stall_timeout,
        egress=Egress(
            networks=tuple(read_network(each) for each in external_network or ()),
            ca_file=str(external_ca_file or ""),
        ),
        model_cache_bytes=model_cache_bytes,
        model_mirrors=tuple(model_mirror or ()),
        tls=_tls(tls_port, tls_host, tls_name or [], tls_certificate, tls_key),
        cors_origins=read_origins(cors_origin or ()),
        request_log=LogFiles(format=request_log_format, max_bytes=request_log_max_bytes),
        otlp_traces_endpoint=otlp_traces_endpoint,
        ways=_ways_in(grpc_port, vertex_proxy_port, vertex_proxy_host, has_tls=tls_port is not None),
    )

    def say(sentence: str) -> None:
        invocation.output.line(sentence)
        invocation.output.event({"message": sentence})

    run_server(settings, say=say)


def _distinct(ports: dict[str, int | None]) -> None:
    """Hold that no two of these options name one port; 0 names none yet.

    Raises:
        WrongUsage: Two do.
    """
    of: dict[int, str] = {}
    for option, port in ports.items():
        if port and (other := of.setdefault(port, option)) != option:
            raise WrongUsage(
                "One port cannot be two.",
                evidence=f"{other} and {option} are both {port}.",
                fix=f"Give {option} another one; 0 takes a free one.",
            )


def _tls(
    port: int | None, host: str, names: list[str], certificate: Path | None, key: Path | None
) -> TlsSettings | None:
    """The TLS port, if there is to be one.

    Raises:
        WrongUsage: What is said of it goes nowhere.
        BadField: A name cannot be one.
    """
    from headrace.server.supervisor import TlsSettings  # noqa: PLC0415  # see above
    from headrace.server.tls.files import CertificateFiles  # noqa: PLC0415
    from headrace.server.tls.names import read_name  # noqa: PLC0415

    if port is None and (host or names or certificate or key):
        raise WrongUsage(
            "Address and certificate are for the TLS port, and there is none.",
            evidence="--tls-host, --tls-name, --tls-certificate or --tls-key was given, and --tls-port was not.",
            fix="Add --tls-port 8443.",
        )
    if (key and not certificate) or (names and certificate):
        raise WrongUsage(
            "These options for the TLS port do not go together.",
            evidence="--tls-key belongs to --tls-certificate; --tls-name is for a certificate that is made here.",
            fix="Give --tls-certificate and --tls-key, or any number of --tls-name.",
        )
    if port is None:
        return None
    own = CertificateFiles(certificate.absolute(), (key or certificate).absolute()) if certificate else None
    return TlsSettings(port=port, host=host, names=tuple(read_name(name) for name in names), own=own)


def _ways_in(grpc_port: int | None, proxy_port: int | None, proxy_host: str, *, has_tls: bool) -> WaysIn:
    """GRPC and the proxy for the names of Vertex AI, as far as they are to be there.

    Raises:
        WrongUsage: gRPC cannot be spoken, or has no certificate to show.
    """
    from headrace.server import vertex_grpc  # noqa: PLC0415  # see above
    from headrace.server.ways_in import LOOPBACK, WaysIn  # noqa: PLC0415

    if grpc_port is not None and not vertex_grpc.available():
        raise WrongUsage(
            "gRPC cannot be spoken here.",
            evidence="grpcio or google-cloud-aiplatform, whose messages it takes, is not installed.",
            fix=f"{vertex_grpc.EXTRA}, or leave out --grpc-port.",
        )
    if grpc_port is not None and not has_tls:
        raise WrongUsage(
            "gRPC is served with the TLS port's certificate, and there is none.",
            evidence="--grpc-port was given, and --tls-port was not. Google's clients speak gRPC over TLS only.",
            fix="Add --tls-port 8443.",
        )
    if proxy_host and proxy_port is None:
        raise WrongUsage(
            "There is no proxy to listen on an address.",
            evidence="--vertex-proxy-host was given, and --vertex-proxy-port was not.",
            fix="Add --vertex-proxy-port 18090.",
        )
    return WaysIn(grpc_port=grpc_port, proxy_port=proxy_port, proxy_host=proxy_host or LOOPBACK)
