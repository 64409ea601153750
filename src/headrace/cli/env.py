"""``headrace env``: what a vendor's client has to find in its environment to talk to this server."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import typer

from headrace.cli.contexts import Login, contexts_path, local_context, resolve
from headrace.cli.exits import WrongUsage
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command
from headrace.cli.serve import DataDirOption
from headrace.resources.addresses import Addresses
from headrace.resources.files import private_dir, write_private
from headrace.resources.layout import Layout, default_data_dir

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class Kind(StrEnum):
    """Whose clients."""

    VERTEX = "vertex"
    OPENAI = "openai"
    GCLOUD = "gcloud"
    GENAI = "genai"
    DATABRICKS = "databricks"


class Settings(msgspec.Struct, frozen=True):
    """What one client needs.

    Attributes:
        variables: By name, in the order in which they are printed.
        notes: What no variable can say.
    """

    variables: dict[str, str]
    notes: list[str]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the server.

    Attributes:
        login: Its address and the key.
        addresses: All ways into it, if it is the one of this machine.
        trust: A file of the authority behind its certificates, and of all that is trusted already; empty where it shows
            none, or one that the system knows.
        proxied: Whether the client is to be led here by the proxy.
        credentials: A file of Google's credentials; empty without.
    """

    login: Login
    addresses: Addresses | None
    trust: str = ""
    proxied: bool = False
    credentials: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "env", panel=MANAGE)(env)


def env(
    invocation: Invocation,
    client: Annotated[Kind, typer.Argument(metavar="vertex|openai|gcloud|genai|databricks", help="Whose client.")],
    proxy: Annotated[
        bool, typer.Option("--proxy", help="Lead code that names no address here: `serve --vertex-proxy-port`.")
    ] = False,
    credentials: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, resolve_path=True, help="A service account's file, for Google's libraries."
        ),
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print the environment of a vendor's client for the server that runs: `eval "$(headrace env openai)"`."""
    login = resolve(invocation.wish, key_needed=False, data_dir=data_dir)
    with invocation.client(login) as asked:
        asked.get("/headrace/v1/whoami" if login.key else "/healthz")
    addresses = _addresses(login, data_dir)
    if proxy:
        _require_proxy(client, addresses)
    server = Server(
        login=login,
        addresses=addresses,
        trust=_trusted(_authority(login, addresses, proxied=proxy)),
        proxied=proxy,
        credentials=str(credentials or ""),
    )
    found = settings(client, server, os.environ)
    invocation.output.document({"variables": found.variables, "notes": found.notes})
    for name, value in found.variables.items():
        invocation.output.line(f"export {name}={shlex.quote(value)}")
    if not invocation.as_json:
        for note in found.notes:
            for line in note.splitlines():
                print(f"# {line}", file=sys.stderr)


def settings(client: Kind, server: Server, environ: Mapping[str, str]) -> Settings:
    """What a client needs to find, in an environment that has this already."""
    variables, notes = _BY_KIND[client](server)
    if server.proxied and server.addresses is not None:
        variables = {**_proxied(server.addresses.proxy_url), **variables}
        notes = [
            "In this shell HTTPS leads to this server or nowhere: the proxy serves the names of Vertex AI alone.",
            *notes,
        ]
    else:
        variables = {**_past_proxies(server.login.url, environ), **variables}
    if not server.login.key:
        notes = [*notes, "No key is known for this server: `headrace login`, or set HEADRACE_API_KEY."]
    return Settings(variables, notes)


def _openai(server: Server) -> tuple[dict[str, str], list[str]]:
    """https://github.com/openai/openai-python and openai-node; the one has httpx, the other Node's own TLS."""
    variables = {"OPENAI_BASE_URL": f"{server.login.url}/v1"}
    if server.login.key:
        variables["OPENAI_API_KEY"] = server.login.key
    if server.trust and server.login.url.startswith("https:"):
        variables |= {"SSL_CERT_FILE": server.trust, "NODE_EXTRA_CA_CERTS": server.trust}
    return variables, []


def _vertex(server: Server) -> tuple[dict[str, str], list[str]]:
    """``google-cloud-aiplatform`` reads no address from the environment, but its region and whom to trust.

    Not its project: where the environment names one, the library asks Google for the number that it may be.
    """
    variables = {"GOOGLE_CLOUD_REGION": server.login.location}
    if server.trust:
        names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
        variables |= dict.fromkeys(names, server.trust)
    given, notes = _google_credentials(server)
    variables |= given
    if not server.proxied:
        notes = [*_init(server), *notes]
    return variables, notes


def _init(server: Server) -> list[str]:
    """How code says where it points."""
    named = f'vertexai.init(project="{server.login.project}", location="{server.login.location}", '
    ways = server.addresses
    notes = [f'{named}api_endpoint="{server.login.url}", api_transport="rest", …)']
    if ways is not None and ways.grpc:
        notes.insert(0, f'{named}api_endpoint="{ways.grpc}", …)')
    if ways is not None and not ways.tls_url:
        notes.append("Without a TLS port (`serve --tls-port`) dedicated endpoints cannot be asked by the library.")
    return notes


def _genai(server: Server) -> tuple[dict[str, str], list[str]]:
    """``google-genai``: it forgets the path where address, project and location all come from the environment."""
    login = server.login
    given, notes = _google_credentials(server)
    trust = {"SSL_CERT_FILE": server.trust, "REQUESTS_CA_BUNDLE": server.trust} if server.trust else {}
    if server.proxied:
        named = {"GOOGLE_GENAI_USE_VERTEXAI": "true", "GOOGLE_CLOUD_PROJECT": login.project}
        return {**named, "GOOGLE_CLOUD_LOCATION": login.location, **trust, **given}, notes
    variables = {"GOOGLE_VERTEX_BASE_URL": login.url}
    made = f'genai.Client(vertexai=True, project="{login.project}", location="{login.location}", …)'
    return {**variables, **(trust if login.url.startswith("https:") else {}), **given}, [made, *notes]


def _gcloud(server: Server) -> tuple[dict[str, str], list[str]]:
    """``gcloud``: each property has a variable, https://cloud.google.com/sdk/docs/properties.

    Its own for whom to trust gives way to the one of the library below it, which a machine may have set.
    """
    login = server.login
    variables = {"CLOUDSDK_CORE_PROJECT": login.project, "CLOUDSDK_AI_REGION": login.location}
    if login.key:
        variables["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"] = _kept("token", login.key)
    if not server.proxied:
        services = ("AIPLATFORM", "CLOUDQUOTAS", "MONITORING")
        variables |= {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}": f"{login.url}/" for name in services}
    if server.trust and (server.proxied or login.url.startswith("https:")):
        names = ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "REQUESTS_CA_BUNDLE")
        variables |= dict.fromkeys(names, server.trust)
    return variables, []


def _databricks(server: Server) -> tuple[dict[str, str], list[str]]:
    """``databricks-sdk`` and MLflow; a host without a scheme would be taken for HTTPS. Both have requests for TLS."""
    variables = {"DATABRICKS_HOST": server.login.url}
    if server.login.key:
        variables["DATABRICKS_TOKEN"] = server.login.key
    if server.trust and server.login.url.startswith("https:"):
        variables |= {"REQUESTS_CA_BUNDLE": server.trust, "SSL_CERT_FILE": server.trust}
    notes = [
        'MLflow: mlflow.set_registry_uri("databricks-uc"), mlflow.deployments.get_deploy_client("databricks").',
        "A service (OAuth M2M) has DATABRICKS_CLIENT_ID, a key's id, and DATABRICKS_CLIENT_SECRET, the key, instead.",
    ]
    return variables, notes


_BY_KIND: dict[Kind, Callable[[Server], tuple[dict[str, str], list[str]]]] = {
    Kind.VERTEX: _vertex,
    Kind.OPENAI: _openai,
    Kind.GCLOUD: _gcloud,
    Kind.GENAI: _genai,
    Kind.DATABRICKS: _databricks,
}


def _google_credentials(server: Server) -> tuple[dict[str, str], list[str]]:
    """Whom Google's libraries say that they are: a file is the only thing that they read."""
    if server.credentials:
        return {"GOOGLE_APPLICATION_CREDENTIALS": server.credentials}, []
    note = (
        "Google's libraries read a key from a file only: `headrace keys create NAME --format service-account`, then "
        "`--credentials FILE`; or give them google.oauth2.credentials.Credentials(token=KEY)."
    )
    return {}, [note]


def _proxied(url: str) -> dict[str, str]:
    """In both spellings: some read the one, some the other."""
    direct = ",".join(LOOPBACK)
    return {"HTTPS_PROXY": url, "https_proxy": url, "NO_PROXY": direct, "no_proxy": direct}


def _past_proxies(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """A server on the loopback is not asked through a proxy that the environment names."""
    if urlsplit(url).hostname not in LOOPBACK or not any(environ.get(name) for name in _PROXIES):
        return {}
    known = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    names = [name.strip() for name in known.split(",") if name.strip()]
    direct = ",".join(dict.fromkeys([*names, *LOOPBACK]))
    return {} if direct == known else {"NO_PROXY": direct, "no_proxy": direct}


def _require_proxy(client: Kind, addresses: Addresses | None) -> None:
    if client in (Kind.OPENAI, Kind.DATABRICKS):
        raise WrongUsage(
            "The proxy is for Google's clients.",
            evidence="It leads the names of Vertex AI here; other clients are told an address.",
            fix="Leave out --proxy.",
        )
    if addresses is None or not addresses.proxy_url:
        raise WrongUsage(
            "This server has no proxy for the names of Vertex AI."
            if addresses is not None
            else "Only the proxy of a server on this machine can be told of.",
            evidence="It was started without --vertex-proxy-port." if addresses else "No server of this user has it.",
            fix="Start it with `headrace serve --vertex-proxy-port 18090`, or leave out --proxy.",
        )


def _addresses(login: Login, data_dir: Path | None) -> Addresses | None:
    """All ways into the server, if it is the one of this machine."""
    layout = Layout(data_dir or default_data_dir())
    if local_context(layout.data_dir) is None:
        return None
    try:
        found = msgspec.json.decode(layout.addresses.read_bytes(), type=Addresses)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if login.url in (found.url, found.tls_url) else None


def _authority(login: Login, addresses: Addresses | None, *, proxied: bool) -> str:
    """The certificates that vouch for the server's own, as text."""
    file = ""
    if addresses is not None:
        file = addresses.proxy_authority if proxied else addresses.tls_authority
    return Path(file).read_text(encoding="ascii") if file else login.ca


def _trusted(authority: str) -> str:
    """A file of this authority, and of all that is trusted without it: the variables replace what a client knows.

    In an environment that has it already it is the same file again.
    """
    if not authority:
        return ""
    known = _known_authorities()
    return _kept("trust", known if authority in known else f"{known}\n{authority}", ".pem")


def _known_authorities() -> str:
    import ssl  # noqa: PLC0415  # only where there is an authority

    import certifi  # noqa: PLC0415  # httpx brings it

    configured = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or ""
    for path in (configured, ssl.get_default_verify_paths().cafile or "", certifi.where()):
        if path and Path(path).is_file():
            return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""


def _folder() -> Path:
    return contexts_path().parent / "env"


def _kept(name: str, content: str, suffix: str = "") -> str:
    """A file with this content, for its owner's eyes only; the same one for the same content."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    path = private_dir(_folder()) / f"{name}-{digest}{suffix}"
    if not path.exists():
        write_private(path, content.encode())
    return str(path)
